//! Delivery proof: what both gateways of a connection counted is compared, round by round; a lasting difference is an alarm.
//!
//! The rules are `gateway_proto::balance`. A round costs what was reported since the last one, and the connections whose
//! comparison is open; it is idempotent. Several replicas may take part: each enters what its own watchers report.

#[cfg(test)]
mod tests;

use std::time::Duration;

use gateway_proto::{
    api::platform::Delivery,
    balance::{BalanceEvent, BalanceTimes, Difference},
    id::ConnectionId,
    observe::Protocol,
};

use super::{Service, ServiceError, ServiceResult, work::Who, work::Work};
use crate::{
    storage::{ConnectionRow, DeliveryRow, Transaction},
    watchers::Told,
};

/// Connections handled in one transaction.
const BATCH: usize = 50;
/// An end that has not confirmed its counts for so long is not waited for any more.
const FORGOTTEN_SECS: u64 = 3_600;
/// Open comparisons read at once.
const OPEN_PAGE: u32 = 500;

impl Service {
    /// One round: enters what gateways told here, and compares. What it does not get to is for the next.
    pub async fn prove_deliveries(&self) -> ServiceResult<()> {
        let mut concerned = self.watchers.counted();
        concerned.extend(self.open_deliveries().await?);
        let concerned: Vec<_> = concerned.into_iter().collect();
        for batch in concerned.chunks(BATCH) {
            match self.prove_all(batch).await {
                Ok(()) => {}
                Err(error @ (ServiceError::Unavailable(_) | ServiceError::Busy)) => return Err(error),
                Err(_) => self.prove_each(batch).await?,
            }
        }
        Ok(())
    }

    /// One of them cannot be proved: the others, and those that come after them, shall not suffer for it.
    async fn prove_each(&self, batch: &[ConnectionId]) -> ServiceResult<()> {
        for connection in batch {
            match self.prove_all(&[*connection]).await {
                Ok(()) => {}
                Err(error @ (ServiceError::Unavailable(_) | ServiceError::Busy)) => return Err(error),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(%connection, error, "the delivery of a connection cannot be proved");
                }
            }
        }
        Ok(())
    }

    async fn prove_all(&self, batch: &[ConnectionId]) -> ServiceResult<()> {
        let mut work = self.work(Who::System).await?;
        let mut read = Vec::with_capacity(batch.len());
        for connection in batch {
            let told = self.watchers.told(*connection);
            self.prove(&mut work, *connection, &told).await?;
            read.push((*connection, told));
        }
        work.commit().await?;
        for (connection, told) in read {
            self.watchers.entered(connection, &told);
        }
        Ok(())
    }

    /// Between two rounds.
    pub fn delivery_interval(&self) -> Duration {
        Duration::from_secs(self.settings.delivery.interval_secs)
    }

    async fn open_deliveries(&self) -> ServiceResult<Vec<ConnectionId>> {
        let mut tx = self.storage.read_for_gateways().await?;
        let mut open: Vec<ConnectionId> = Vec::new();
        loop {
            let after = open.last().map(ToString::to_string).unwrap_or_default();
            let more = tx.open_deliveries(&after, OPEN_PAGE).await?;
            if more.is_empty() {
                return Ok(open);
            }
            open.extend(more);
        }
    }

    async fn prove(&self, work: &mut Work, id: ConnectionId, told: &[Told]) -> ServiceResult<()> {
        let Some(row) = work.connection(id).await? else { return Ok(()) };
        let before = work.delivery(id).await?;
        let mut delivery = before.clone().unwrap_or_else(|| DeliveryRow::new(id));
        let now = work.now;
        let times = self.settings.delivery.times();
        let has_ended = row.ended_at.is_some();
        // With itself a gateway has one report for both ends, that of the sender: it is metered, and there is nothing to compare.
        let is_with_itself = row.sender.server == row.listener.server;
        let (mut is_blind, mut has_lost_track) = (false, false);
        let ends = [(&row.sender, &mut delivery.sender), (&row.listener, &mut delivery.listener)];
        for (end, tally) in ends.into_iter().take(if is_with_itself { 1 } else { 2 }) {
            let Some(server) = end.server else { continue };
            let told = told.iter().filter(|(of, _)| *of == server).map(|(_, counts)| *counts);
            if has_ended {
                // What was told before the end is metered; there is nothing left to compare.
                let told: Vec<_> = told.collect();
                work.meter(&row, end, tally.report(&told, now)).await?;
                continue;
            }
            let report = self.last_report(&mut **work, server, id).await?.map(|(report, _)| report.counts);
            let here = self.watchers.counts(server, id);
            let counts: Vec<_> = told.chain(here).collect();
            // An older gateway counts HL7 v2 messages only; one that is out of reach has counted, and will tell.
            is_blind |= report.is_some_and(|counts| counts.is_none_or(|counts| counts.uncompared));
            is_blind |= counts.iter().any(|counts| counts.uncompared);
            let adrift = tally.adrift();
            let more = tally.report(&counts, now);
            has_lost_track |= tally.adrift() > adrift;
            if more > 0 {
                work.meter(&row, end, more).await?;
            }
            // What is all there is, only a gateway that watches can say.
            match here {
                Some(here) if here.under_way => tally.confirm_midway(now),
                Some(_) => tally.confirm(now),
                None => {}
            }
        }
        if has_ended || is_with_itself || is_blind || has_lost_track {
            if is_blind || has_lost_track {
                delivery.balance.handle_blindness();
            }
            // Of a stream that is over nobody will tell anything more: the next rounds look for the pause.
            delivery.is_open = has_lost_track && !is_with_itself;
            return store(work, before, delivery).await;
        }
        // A gateway that is out of reach has counts we do not know.
        let fresh = now.saturating_sub(self.settings.delivery.interval_secs * 3);
        let is_known = [&delivery.sender, &delivery.listener].iter().all(|tally| tally.confirmed_at() > fresh);
        let mut event = None;
        if is_known {
            event = delivery.balance.handle_tallies(&delivery.sender, &delivery.listener, now, &times);
        }
        // An end that has been out of reach for long is not waited for: its next report opens the comparison again. But one that
        // watches at another replica and was idle is only heard while the comparison is open: it has its time from what was counted last.
        let forgotten = now.saturating_sub(FORGOTTEN_SECS.max(self.settings.delivery.interval_secs * 10));
        let ends = [&delivery.sender, &delivery.listener];
        let is_idle = ends.iter().all(|tally| tally.changed_at() < forgotten);
        let is_lost = is_idle && ends.iter().any(|tally| tally.confirmed_at() < forgotten);
        delivery.is_open =
            if is_known { delivery.balance.is_open(&delivery.sender, &delivery.listener, &times) } else { !is_lost };
        if let Some(event) = event {
            announce(work, &row, event).await?;
        }
        store(work, before, delivery).await
    }
}

async fn store(work: &mut Work, before: Option<DeliveryRow>, delivery: DeliveryRow) -> ServiceResult<()> {
    if before.as_ref() != Some(&delivery) {
        work.put_delivery(&delivery).await?;
    }
    Ok(())
}

async fn announce(work: &mut Work, row: &ConnectionRow, event: BalanceEvent) -> ServiceResult<()> {
    let (act, alarm) = match event {
        BalanceEvent::Raised(alarm) => ("connection.delivery_differs", alarm),
        BalanceEvent::Cleared(alarm) => ("connection.delivery_equal", alarm),
        BalanceEvent::WrittenOff(alarm) => ("connection.delivery_written_off", alarm),
    };
    let Difference { messages, answers } = alarm.difference;
    tracing::warn!(connection = %row.id, act, messages, answers, "delivery proof");
    let detail = format!("{messages} messages, {answers} answers, since {}", alarm.since);
    work.audit(&[row.sender.organization, row.listener.organization], act, row.id, detail).await
}

/// What is shown of the proof; none where nothing was counted yet, or nothing of it can be compared.
pub(super) async fn shown(
    tx: &mut dyn Transaction,
    row: &ConnectionRow,
    behavior: &str,
) -> ServiceResult<Option<Delivery>> {
    if Protocol::of(behavior) == Protocol::Unknown || row.sender.server == row.listener.server {
        return Ok(None);
    }
    Ok(tx.delivery(row.id).await?.map(|row| Delivery {
        sender_messages: row.sender.messages(),
        listener_messages: row.listener.messages(),
        sender_answers: row.sender.answers(),
        listener_answers: row.listener.answers(),
        alarm: row.balance.alarm(),
        written_off: row.balance.written_off(),
        explained: row.balance.explained(),
        uncompared: row.balance.is_blind(),
    }))
}

/// How often the ends are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverySettings {
    /// Seconds between two rounds, at least 2.
    pub interval_secs: u64,
}

impl DeliverySettings {
    fn times(self) -> BalanceTimes {
        let interval = self.interval_secs;
        BalanceTimes { grace: (interval / 6).max(1), lasting: interval, settled: interval * 15 }
    }
}
