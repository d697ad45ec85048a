//! Keeps on disk how long each connection is usually silent: learning takes days, and a restart must not begin anew.

use std::{collections::BTreeMap, time::Duration};

use gateway_net::causes::with_causes;
use gateway_proto::observe::Schedule;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    authority::Authority,
    traffic::{End, Role, TrafficTable},
};

/// What was learned since the last write is lost with a crash; that costs a little of one day.
const EVERY: Duration = Duration::from_secs(900);

/// Reads what was learned before. A damaged file costs what it held, not the start.
pub fn restore(authority: &Authority, traffic: &TrafficTable) {
    match authority.state().load_schedules() {
        Ok(saved) => {
            let known = saved.into_iter().filter(|(_, schedule)| schedule.is_sound());
            traffic.restore_schedules(known.filter_map(|(name, schedule)| Some((end(&name)?, schedule))).collect());
        }
        Err(error) => warn!(problem = with_causes(&error), "the learned schedules could not be read"),
    }
}

/// Writes them now and then, and at the end.
pub async fn keep(authority: Authority, traffic: TrafficTable, stop: CancellationToken) {
    let mut written = BTreeMap::new();
    loop {
        let stopped = stop.run_until_cancelled(sleep(EVERY)).await.is_none();
        let learned = traffic.schedules();
        let is_news = |(end, schedule): (&End, &Schedule)| written.get(end).unwrap_or(&Schedule::default()) != schedule;
        if learned.iter().any(is_news) || written.keys().any(|end| !learned.contains_key(end)) {
            write(&authority, &learned).await;
            written = learned;
        }
        if stopped {
            return;
        }
    }
}

async fn write(authority: &Authority, learned: &BTreeMap<End, Schedule>) {
    let file = learned.iter().map(|(end, schedule)| (name(*end), schedule.clone())).collect();
    authority.write("the learned schedules", move |state| state.save_schedules(&file)).await;
}

fn name((id, role): End) -> String {
    let role = match role {
        Role::Sender => "sender",
        Role::Listener => "listener",
    };
    format!("{id}/{role}")
}

fn end(name: &str) -> Option<End> {
    let (id, role) = name.split_once('/')?;
    let role = match role {
        "sender" => Role::Sender,
        "listener" => Role::Listener,
        _ => return None,
    };
    Some((id.parse().ok()?, role))
}

#[cfg(test)]
mod tests {
    use gateway_proto::id::ConnectionId;

    use super::*;

    #[test]
    fn an_end_is_known_again_by_its_name() {
        for role in [Role::Sender, Role::Listener] {
            let one = (ConnectionId::new(7, [9; 10]), role);
            assert_eq!(end(&name(one)), Some(one));
        }
        assert_eq!(end("con_x/sender"), None);
        assert_eq!(end("nothing"), None);
    }
}
