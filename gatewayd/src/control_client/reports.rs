//! What was reported on a link already, so that only changes are sent. A new link starts empty and so sends everything.
//!
//! What moves by itself goes along with what changed, and by itself only a minute after the last report of its connection.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use gateway_proto::{
    api::gateway::{ConnectionReport, EndDetails, MAX_REPORT_CONNECTIONS, PathWhy, Report},
    id::{ConnectionId, RelayId},
};

/// A round-trip time always moves a little: smaller changes than these two are no news.
const RTT_NEWS_RATIO: f64 = 0.1;
const RTT_NEWS_MS: f64 = 1.0;
/// For what may wait: an attempt at a direct path changes the words about it again and again, and a hundred thousand connections
/// have such words.
const PATIENCE: Duration = Duration::from_secs(60);

/// The last report of every connection; bounded by the policy, because what is gone from it is dropped.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    /// With itself, a gateway reports both ends of one connection.
    sent: BTreeMap<ConnectionId, Sent>,
    home_relay: Option<Option<RelayId>>,
}

#[derive(Debug)]
struct Sent {
    reports: Vec<ConnectionReport>,
    at: Instant,
}

impl Reporter {
    /// Hands the changes to `send`, in reports of limited size. What `send` does not take is tried again next time.
    pub(super) fn update(
        &mut self,
        connections: Vec<ConnectionReport>,
        home_relay: Option<RelayId>,
        now: Instant,
        mut send: impl FnMut(Report) -> bool,
    ) {
        let mut current: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for report in connections {
            current.entry(report.id).or_default().push(report);
        }
        self.sent.retain(|id, _| current.contains_key(id));
        current.retain(|id, reports| self.sent.get(id).is_none_or(|before| is_news(before, reports, now)));

        let mut changes = current.into_iter().peekable();
        while changes.peek().is_some() || self.home_relay != Some(home_relay) {
            let mut part = Vec::new();
            let mut count = 0;
            while let Some((id, reports)) =
                changes.next_if(|(_, reports)| count == 0 || count + reports.len() <= MAX_REPORT_CONNECTIONS)
            {
                count += reports.len();
                part.push((id, reports));
            }
            let entries = part.iter().flat_map(|(_, reports)| reports.iter().cloned()).collect();
            if !send(Report { home_relay, connections: entries, ..Report::default() }) {
                return;
            }
            self.home_relay = Some(home_relay);
            self.sent.extend(part.into_iter().map(|(id, reports)| (id, Sent { reports, at: now })));
        }
    }
}

fn is_news(sent: &Sent, current: &[ConnectionReport], now: Instant) -> bool {
    let waited = now.duration_since(sent.at) >= PATIENCE;
    let mut pairs = sent.reports.iter().zip(current);
    sent.reports.len() != current.len() || pairs.any(|(before, current)| differs(before, current, waited))
}

/// `waited`: what may wait has waited.
fn differs(before: &ConnectionReport, current: &ConnectionReport, waited: bool) -> bool {
    let rtt_moved = match (before.rtt_ms, current.rtt_ms) {
        (Some(before), Some(current)) => (before - current).abs() > RTT_NEWS_MS.max(before * RTT_NEWS_RATIO),
        (before, current) => before.is_some() != current.is_some(),
    };
    let details = match (&before.details, &current.details) {
        (Some(told), Some(details)) if !waited => Some(with_what_may_wait(told, details.clone())),
        (_, details) => details.clone(),
    };
    rtt_moved || ConnectionReport { rtt_ms: before.rtt_ms, details, ..current.clone() } != *before
}

/// The details now with what may wait as it was told.
fn with_what_may_wait(told: &EndDetails, current: EndDetails) -> EndDetails {
    let path_reason = match (&told.path_reason, current.path_reason) {
        (Some(told), Some(why)) => Some(PathWhy { text: told.text.clone(), ..why }),
        (_, why) => why,
    };
    EndDetails { path_reason, last_acknowledged_at: told.last_acknowledged_at, ..current }
}

#[cfg(test)]
mod tests {
    use gateway_proto::api::gateway::Connectivity;

    use super::*;

    fn report(n: u8) -> ConnectionReport {
        ConnectionReport {
            id: ConnectionId::new(u64::from(n), [n; 10]),
            connectivity: Connectivity::Connected,
            path: None,
            rtt_ms: Some(10.0),
            last_message_at: None,
            bytes_sent: 0,
            bytes_received: 0,
            streams: 0,
            problem: None,
            counts: None,
            details: None,
        }
    }

    fn sizes(reporter: &mut Reporter, connections: Vec<ConnectionReport>, home: Option<RelayId>) -> Vec<usize> {
        let now = reporter.sent.values().map(|sent| sent.at).max().unwrap_or_else(Instant::now);
        sizes_at(reporter, now, connections, home)
    }

    fn sizes_at(
        reporter: &mut Reporter,
        now: Instant,
        connections: Vec<ConnectionReport>,
        home: Option<RelayId>,
    ) -> Vec<usize> {
        let mut sizes = Vec::new();
        reporter.update(connections, home, now, |report| {
            sizes.push(report.connections.len());
            true
        });
        sizes
    }

    /// A connection with these details.
    fn detailed(code: &str, text: &str, acknowledged: u64, unconfirmed: Option<u64>) -> Vec<ConnectionReport> {
        let details = EndDetails {
            path_reason: Some(PathWhy { code: code.into(), text: text.into() }),
            last_acknowledged_at: Some(acknowledged),
            policy_unconfirmed_since: unconfirmed,
            ..EndDetails::default()
        };
        vec![ConnectionReport { details: Some(details), ..report(1) }]
    }

    #[test]
    fn what_moves_by_itself_is_told_once_a_minute_at_most_and_what_is_new_at_once() {
        let (mut reporter, start) = (Reporter::default(), Instant::now());
        let mut told = 0;
        for secs in (0..600).step_by(2) {
            let text = if secs % 4 == 0 { "tried" } else { "nothing passes" };
            let connections = detailed("RelayFirst", text, secs, None);
            told += sizes_at(&mut reporter, start + Duration::from_secs(secs), connections, None).len();
        }
        assert_eq!(told, 10);
        // Another path or another reason for it, and a policy that nobody confirms, do not wait. Nor is any of it told twice.
        let now = start + Duration::from_secs(600);
        let mut at = |connections| sizes_at(&mut reporter, now, connections, None);
        at(detailed("RelayFirst", "tried", 600, None));
        assert_eq!(at(detailed("RelayFirst", "nothing passes", 601, None)), [0; 0]);
        assert_eq!(at(detailed("HeartbeatLost", "nothing passes", 601, None)), [1]);
        assert_eq!(at(detailed("HeartbeatLost", "nothing passes", 601, Some(570))), [1]);
        assert_eq!(at(detailed("HeartbeatLost", "tried", 602, Some(570))), [0; 0]);
        assert_eq!(at(detailed("HeartbeatLost", "tried", 602, None)), [1]);
    }

    #[test]
    fn what_may_wait_goes_along_with_what_changed_and_nothing_is_told_of_an_idle_connection() {
        let (mut reporter, start) = (Reporter::default(), Instant::now());
        let mut at = |secs, connections| {
            let mut told = Vec::new();
            reporter.update(connections, None, start + Duration::from_secs(secs), |report| {
                told.extend(report.connections.into_iter().filter_map(|report| report.details?.last_acknowledged_at));
                true
            });
            told
        };
        assert_eq!(at(0, detailed("DirectProved", "", 1, None)), [1]);
        let busy = detailed("DirectProved", "", 2, None);
        let busy: Vec<_> = busy.into_iter().map(|r| ConnectionReport { bytes_sent: 9, ..r }).collect();
        assert_eq!(at(2, busy.clone()), [2]);
        assert_eq!(at(86_400, busy), [0_u64; 0]);
    }

    #[test]
    fn everything_is_sent_first_and_then_only_what_changed() {
        let mut reporter = Reporter::default();
        assert_eq!(sizes(&mut reporter, vec![report(1), report(2)], None), [2]);
        assert_eq!(sizes(&mut reporter, vec![report(1), report(2)], None), [0; 0]);
        let changed = ConnectionReport { streams: 1, ..report(2) };
        assert_eq!(sizes(&mut reporter, vec![report(1), changed], None), [1]);
    }

    #[test]
    fn a_round_trip_time_that_trembles_is_no_news() {
        let mut reporter = Reporter::default();
        sizes(&mut reporter, vec![report(1)], None);
        let with = |rtt_ms| vec![ConnectionReport { rtt_ms, ..report(1) }];
        assert_eq!(sizes(&mut reporter, with(Some(10.9)), None), [0; 0]);
        assert_eq!(sizes(&mut reporter, with(Some(20.0)), None), [1]);
        assert_eq!(sizes(&mut reporter, with(None), None), [1]);
    }

    #[test]
    fn an_empty_first_report_and_a_new_home_relay_are_news() {
        let mut reporter = Reporter::default();
        assert_eq!(sizes(&mut reporter, vec![], None), [0]);
        assert_eq!(sizes(&mut reporter, vec![], Some(RelayId::new(1, [0; 10]))), [0]);
        assert_eq!(sizes(&mut reporter, vec![], Some(RelayId::new(1, [0; 10]))), [0; 0]);
    }

    #[test]
    fn many_connections_are_sent_in_parts_and_what_was_not_taken_is_sent_again() {
        let many: Vec<_> =
            (0..1200u64).map(|n| ConnectionReport { id: ConnectionId::new(n, [0; 10]), ..report(0) }).collect();
        let mut reporter = Reporter::default();
        let mut room = 2;
        reporter.update(many.clone(), None, Instant::now(), |_| {
            room -= 1;
            room >= 0
        });
        assert_eq!(sizes(&mut reporter, many, None), [200]);
    }

    #[test]
    fn both_ends_of_a_connection_with_itself_are_reported_once() {
        let ends = || vec![ConnectionReport { streams: 1, ..report(1) }, report(1)];
        let mut reporter = Reporter::default();
        assert_eq!(sizes(&mut reporter, ends(), None), [2]);
        assert_eq!(sizes(&mut reporter, ends(), None), [0; 0]);
    }
}
