//! What was reported on a link already, so that only changes are sent. A new link starts empty and so sends everything.

use std::collections::BTreeMap;

use gateway_proto::{
    api::gateway::{ConnectionReport, MAX_REPORT_CONNECTIONS, Report},
    id::{ConnectionId, RelayId},
};

/// A round-trip time always moves a little: smaller changes than these two are no news.
const RTT_NEWS_RATIO: f64 = 0.1;
const RTT_NEWS_MS: f64 = 1.0;

/// The last report of every connection; bounded by the policy, because what is gone from it is dropped.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    /// With itself, a gateway reports both ends of one connection.
    sent: BTreeMap<ConnectionId, Vec<ConnectionReport>>,
    home_relay: Option<Option<RelayId>>,
}

impl Reporter {
    /// Hands the changes to `send`, in reports of limited size. What `send` does not take is tried again next time.
    pub(super) fn update(
        &mut self,
        connections: Vec<ConnectionReport>,
        home_relay: Option<RelayId>,
        mut send: impl FnMut(Report) -> bool,
    ) {
        let mut current: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for report in connections {
            current.entry(report.id).or_default().push(report);
        }
        self.sent.retain(|id, _| current.contains_key(id));
        current.retain(|id, reports| self.sent.get(id).is_none_or(|before| is_news(before, reports)));

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
            self.sent.extend(part);
        }
    }
}

fn is_news(before: &[ConnectionReport], now: &[ConnectionReport]) -> bool {
    before.len() != now.len() || before.iter().zip(now).any(|(before, now)| differs(before, now))
}

fn differs(before: &ConnectionReport, now: &ConnectionReport) -> bool {
    let rtt_moved = match (before.rtt_ms, now.rtt_ms) {
        (Some(before), Some(now)) => (before - now).abs() > RTT_NEWS_MS.max(before * RTT_NEWS_RATIO),
        (before, now) => before.is_some() != now.is_some(),
    };
    rtt_moved || ConnectionReport { rtt_ms: before.rtt_ms, ..now.clone() } != *before
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
        }
    }

    fn sizes(reporter: &mut Reporter, connections: Vec<ConnectionReport>, home: Option<RelayId>) -> Vec<usize> {
        let mut sizes = Vec::new();
        reporter.update(connections, home, |report| {
            sizes.push(report.connections.len());
            true
        });
        sizes
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
        reporter.update(many.clone(), None, |_| {
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
