//! Which process of a gateway is the gateway: what is decided by [`Seat`] is asked, written down and told here.

use std::{net::IpAddr, time::Duration};

use gateway_proto::{
    id::ServerId,
    twice::{Instance, Life, Process, RunsTwice, Seat, Twice, Verdict},
};

use super::{Service, ServiceError, ServiceResult, Work};
use crate::storage::ServerRow;

/// For the answer of the one that watches: several times the longest way there and back, and a restart does not wait for it.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// A process of a gateway that has come to watch.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// Which.
    pub instance: Instance,
    address: Option<String>,
    /// What is known of another one that watches at this replica; none: there is none.
    life: Option<Life>,
}

impl Service {
    /// What is to be known before a process of a gateway may watch. Waits for another one that watches here to answer.
    pub async fn newcomer(&self, server: ServerId, instance: Instance, address: IpAddr) -> Newcomer {
        let life = self.watchers.ask(server, instance, ASK_LIMIT).await;
        let address = (!address.is_unspecified()).then(|| address.to_canonical().to_string());
        Newcomer { instance, address, life }
    }
}

impl Work {
    /// Lets a process have the place of its gateway, or says who has it: [`ServiceError::RunsTwice`]. What is decided stands also
    /// when it is a refusal.
    pub(super) async fn take_seat(&mut self, server: &ServerRow, newcomer: &Newcomer) -> ServiceResult<()> {
        let (mut seat, now) = (server.seat(), self.now);
        let life = match newcomer.life {
            Some(life) => life,
            // Of itself nobody asks.
            None if seat.is_held_by(newcomer.instance) => Life::Gone,
            None => self.life_elsewhere(server.id).await?,
        };
        let known = seat.twice(now).is_some();
        let before = seat.clone();
        let verdict = seat.enter(newcomer.instance, newcomer.address.clone(), life, now);
        if seat != before {
            self.set_seat(server.id, &seat).await?;
        }
        if verdict != Verdict::Refused {
            return Ok(());
        }
        if let Some(twice) = seat.twice(now) {
            // Whoever watches looks again, and is told.
            self.wakes(server.id);
            if !known {
                let detail = detail(twice);
                tracing::warn!(server = %server.id, detail, "a gateway runs twice: a second process with its key was refused");
                self.audit(&[server.organization], "gateway.runs_twice", server.id, detail).await?;
            }
        }
        Err(ServiceError::RunsTwice(Box::new(second(&seat, now))))
    }

    /// The watch of a process has ended.
    pub(super) async fn leave_seat(&mut self, server: &ServerRow, instance: Instance) -> ServiceResult<()> {
        // On another watch it may be here still.
        if self.service().watchers().last_heard(server.id).is_some() {
            return Ok(());
        }
        let (mut seat, now) = (server.seat(), self.now);
        let before = seat.clone();
        seat.leave(instance, now);
        if seat != before {
            self.set_seat(server.id, &seat).await?;
        }
        Ok(())
    }

    /// Another replica cannot be asked in time.
    async fn life_elsewhere(&mut self, server: ServerId) -> ServiceResult<Life> {
        if !self.service().is_shared() {
            return Ok(Life::Gone);
        }
        let alive_since = self.service().alive_since();
        let watches = self.watch_heard(server, alive_since).await?.is_some();
        Ok(if watches { Life::Unasked } else { Life::Gone })
    }
}

/// What the one that is refused is told.
fn second(seat: &Seat, now: u64) -> RunsTwice {
    let holder = seat.holder();
    RunsTwice {
        is_second: true,
        since: holder.map_or(now, Process::since),
        at: now,
        address: holder.and_then(Process::address).map(str::to_owned),
    }
}

/// What the process that holds the place is told, if another one was refused lately.
pub fn told_first(seat: &Seat, instance: Instance, now: u64) -> Option<RunsTwice> {
    let twice = seat.twice(now).filter(|_| seat.is_held_by(instance) && !seat.stands_in(now))?;
    Some(RunsTwice { is_second: false, since: twice.since, at: twice.at, address: twice.other_address.clone() })
}

fn detail(twice: &Twice) -> String {
    let from = |address: &Option<String>| address.clone().unwrap_or_else(|| "an address that is not known".to_owned());
    format!(
        "a second process with the gateway's key came from {}; the one from {} keeps the place",
        from(&twice.other_address),
        from(&twice.address)
    )
}
