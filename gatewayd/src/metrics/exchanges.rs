//! What passed, and what the observers saw of it, per end of a connection. The labels are the connection's id and our role in it: as many as the
//! policy lists, capped; message types, titles and whatever else comes from a peer are no labels.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use gateway_proto::{
    id::ConnectionId,
    observe::{BOUNDS, Book, Latency},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, NoLabelSet},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::traffic::{Role, Traffic};

/// Ends of connections with metrics of their own at most; a gateway has a few dozen.
pub const MAX_ENDS: usize = 1000;

/// The numbers of one end.
#[derive(Debug)]
pub struct ExchangeMetrics {
    /// The connection.
    pub connection: ConnectionId,
    /// Our role in it.
    pub role: Role,
    /// What passed, looked into or not.
    pub passed: Passed,
    /// What was seen of it; none where nothing is observed.
    pub numbers: Option<Numbers>,
}

/// What passed at one end: bytes of payload, and streams.
#[derive(Debug, Clone, Copy)]
pub struct Passed {
    counters: [(Name, u64); 5],
    open: u32,
}

impl Passed {
    /// Of these counters.
    pub fn of(traffic: &Traffic) -> Self {
        let counters = [
            (("connection_bytes", "to_peer"), &traffic.bytes_sent),
            (("connection_bytes", "from_peer"), &traffic.bytes_received),
            (("connection_streams", "finished"), &traffic.finished),
            (("connection_streams", "reset"), &traffic.reset),
            (("connection_streams", "refused"), &traffic.refused),
        ];
        Self {
            counters: counters.map(|(name, count)| (name, count.load(Relaxed))),
            open: traffic.streams.load(Relaxed),
        }
    }
}

impl ExchangeMetrics {
    fn counters(&self) -> impl Iterator<Item = &(Name, u64)> {
        self.passed.counters.iter().chain(self.numbers.iter().flat_map(|numbers| &numbers.counters))
    }
}

/// The numbers of one end, by name.
#[derive(Debug)]
pub struct Numbers {
    counters: Vec<(Name, u64)>,
    outstanding: Option<u64>,
    /// How long the first message waits for its acknowledgement, seconds.
    wait: Option<f64>,
    latency: Option<(Vec<u64>, f64)>,
}

/// A metric with one more label of a closed set.
type Name = (&'static str, &'static str);

const HELP: [(&str, &str, &str); 8] = [
    ("connection_bytes", "direction", "Payload bytes of the connection"),
    ("connection_streams", "end", "Streams of the connection that are over, by how they ended"),
    ("messages", "", "Whole messages that passed"),
    ("answers", "code", "Acknowledgements that passed, by code"),
    ("commits", "code", "Commit blocks of MLLP release 2 that passed either way, by code"),
    ("message_faults", "fault", "Messages that ended unacknowledged, came again, or were framed wrongly"),
    ("requests", "method", "HTTP requests that passed, by class of method"),
    ("units", "unit", "DICOM associations and data units, and HTTP answers by class"),
];

impl Numbers {
    /// Of a book; none where nothing is observed.
    pub fn of(book: &Book, now: Instant) -> Option<Self> {
        match book {
            Book::Mllp(ledger) => {
                let counts = ledger.counts();
                Some(Self {
                    counters: vec![
                        (("messages", ""), counts.messages),
                        (("answers", "accepted"), counts.accepted),
                        (("answers", "error"), counts.errors),
                        (("answers", "rejected"), counts.rejected),
                        (("answers", "other"), counts.other_answers),
                        (("commits", "accepted"), counts.commits_accepted),
                        (("commits", "refused"), counts.commits_refused),
                        (("message_faults", "unacknowledged"), counts.unacknowledged),
                        (("message_faults", "duplicate"), counts.duplicates),
                        (("message_faults", "retry"), counts.retries),
                        (("message_faults", "late_answer"), counts.late_answers),
                        (("message_faults", "mismatched_answer"), counts.mismatched_answers),
                        (("message_faults", "junk"), counts.junk),
                        (("message_faults", "end_missing"), counts.end_missing),
                        (("message_faults", "no_header"), counts.no_header),
                        (("message_faults", "empty"), counts.empty),
                        (("message_faults", "cut"), counts.cut),
                    ],
                    outstanding: Some(counts.outstanding),
                    wait: Some(ledger.longest_wait(now).unwrap_or_default().as_secs_f64()),
                    latency: Some(histogram(ledger.latency())),
                })
            }
            Book::Http(ledger) => {
                let counts = &ledger.counts;
                let [interim, success, redirect, client, server] = counts.statuses;
                Some(Self {
                    counters: vec![
                        (("requests", "read"), counts.reads),
                        (("requests", "write"), counts.writes),
                        (("requests", "other"), counts.others),
                        (("units", "1xx"), interim),
                        (("units", "2xx"), success),
                        (("units", "3xx"), redirect),
                        (("units", "4xx"), client),
                        (("units", "5xx"), server),
                        (("message_faults", "unacknowledged"), counts.unanswered),
                        (("message_faults", "unreadable"), counts.unreadable),
                    ],
                    outstanding: None,
                    wait: None,
                    latency: Some(histogram(&ledger.latency)),
                })
            }
            Book::Dicom(ledger) => {
                let counts = &ledger.counts;
                Some(Self {
                    counters: vec![
                        (("units", "association_requested"), counts.requested),
                        (("units", "association_accepted"), counts.accepted),
                        (("units", "association_rejected"), counts.rejected),
                        (("units", "association_aborted"), counts.aborted),
                        (("units", "association_released"), counts.released),
                        (("units", "data_sent"), counts.data_units_sent),
                        (("units", "data_received"), counts.data_units_received),
                        (("message_faults", "unreadable"), counts.unreadable),
                    ],
                    outstanding: None,
                    wait: None,
                    latency: None,
                })
            }
            Book::Nothing => None,
        }
    }
}

fn histogram(latency: &Latency) -> (Vec<u64>, f64) {
    (latency.buckets().to_vec(), latency.sum().as_secs_f64())
}

/// Adds them to the page.
pub(super) fn register(registry: &mut Registry, mut ends: Vec<ExchangeMetrics>) {
    ends.truncate(MAX_ENDS);
    registry.register_collector(Box::new(Exchanges(ends)));
}

#[derive(Debug)]
struct Exchanges(Vec<ExchangeMetrics>);

impl Exchanges {
    fn encode_counter(
        &self,
        (name, label, help): (&'static str, &'static str, &'static str),
        encoder: &mut DescriptorEncoder<'_>,
    ) -> std::fmt::Result {
        let metric = ConstCounter::new(0_u64);
        let mut family = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
        for end in &self.0 {
            let (connection, role) = labels(end);
            for ((_, value), count) in end.counters().filter(|((counter, _), _)| *counter == name) {
                let counter = ConstCounter::new(*count);
                if label.is_empty() {
                    counter.encode(family.encode_family(&[("connection", connection.as_str()), ("role", role)])?)?;
                } else {
                    let labels = [("connection", connection.as_str()), ("role", role), (label, *value)];
                    counter.encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    /// A gauge of the ends that have it.
    fn encode_gauge<N: EncodeGaugeValue + Default>(
        &self,
        (name, help, unit): (&'static str, &'static str, Option<&Unit>),
        of: impl Fn(&ExchangeMetrics) -> Option<N>,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> std::fmt::Result {
        let kind = ConstGauge::new(N::default()).metric_type();
        let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
        for end in &self.0 {
            let Some(value) = of(end) else { continue };
            let (connection, role) = labels(end);
            let labels = [("connection", connection.as_str()), ("role", role)];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Exchanges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for counter in HELP {
            self.encode_counter(counter, &mut encoder)?;
        }
        let help = "Open streams of the connection";
        let open = |end: &ExchangeMetrics| Some(i64::from(end.passed.open));
        self.encode_gauge(("connection_streams_open", help, None), open, &mut encoder)?;
        let help = "Messages without an answer now";
        let outstanding = |end: &ExchangeMetrics| {
            let outstanding = end.numbers.as_ref()?.outstanding?;
            Some(i64::try_from(outstanding).unwrap_or(i64::MAX))
        };
        self.encode_gauge(("messages_outstanding", help, None), outstanding, &mut encoder)?;
        let unit = Unit::Seconds;
        let help = "For how long the first message without an acknowledgement waits now";
        let wait = |end: &ExchangeMetrics| end.numbers.as_ref()?.wait;
        self.encode_gauge(("message_wait", help, Some(&unit)), wait, &mut encoder)?;
        let help = "From a message or request to its answer";
        let kind = prometheus_client::metrics::MetricType::Histogram;
        let mut family = encoder.encode_descriptor("answer", help, Some(&unit), kind)?;
        for end in &self.0 {
            let (connection, role) = labels(end);
            let Some((counts, sum)) = end.numbers.as_ref().and_then(|numbers| numbers.latency.as_ref()) else {
                continue;
            };
            let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
            let labels = [("connection", connection.as_str()), ("role", role)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(*sum, counts.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }
}

fn labels(end: &ExchangeMetrics) -> (String, &'static str) {
    let role = match end.role {
        Role::Sender => "sender",
        Role::Listener => "listener",
    };
    (end.connection.to_string(), role)
}

#[cfg(test)]
mod tests {
    use gateway_proto::{
        mllp::{Conversation, HashKey},
        observe::Protocol,
    };
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn the_page_has_counts_and_times_by_connection_and_nothing_a_peer_can_choose() {
        let mut book = Book::new(Protocol::Mllp, HashKey::from_bytes([1; 16]));
        let Book::Mllp(ledger) = &mut book else { panic!("an MLLP book") };
        let mut talk = Conversation::new(ledger, true);
        let now = Instant::now();
        talk.observe_message_bytes(b"\x0bMSH|^~\\&|A|B|C|D|1||SEC^RET|ID\r\x1c\r", ledger, now);
        let later = now + Duration::from_millis(7);
        talk.observe_acknowledgement_bytes(b"\x0b\x06\x1c\r", ledger, now);
        talk.observe_acknowledgement_bytes(b"\x0bMSH|^~\\&|A\rMSA|AE|ID\r\x1c\r", ledger, later);
        talk.observe_message_bytes(b"\x0bMSH|^~\\&|A|B|C|D|1||SEC^RET|ID2\r\x1c\r", ledger, later);
        let numbers = Numbers::of(&book, later + Duration::from_secs(6));
        let connection = ConnectionId::new(1, [0; 10]);
        let passed = Passed::of(&Traffic::default());
        let ends = vec![ExchangeMetrics { connection, role: Role::Sender, passed, numbers }];
        let mut registry = Registry::with_prefix("gatewayd");
        register(&mut registry, ends);
        let mut page = String::new();
        assert_eq!(encode(&mut page, &registry), Ok(()));
        for line in [
            format!("gatewayd_messages_total{{connection=\"{connection}\",role=\"sender\"}} 2"),
            format!("gatewayd_answers_total{{connection=\"{connection}\",role=\"sender\",code=\"error\"}} 1"),
            format!("gatewayd_commits_total{{connection=\"{connection}\",role=\"sender\",code=\"accepted\"}} 1"),
            format!("gatewayd_messages_outstanding{{connection=\"{connection}\",role=\"sender\"}} 1"),
            format!("gatewayd_message_wait_seconds{{connection=\"{connection}\",role=\"sender\"}} 6.0"),
            format!("gatewayd_answer_seconds_bucket{{le=\"0.005\",connection=\"{connection}\",role=\"sender\"}} 0"),
            format!("gatewayd_answer_seconds_bucket{{le=\"0.01\",connection=\"{connection}\",role=\"sender\"}} 1"),
            format!("gatewayd_answer_seconds_bucket{{le=\"+Inf\",connection=\"{connection}\",role=\"sender\"}} 1"),
        ] {
            assert!(page.contains(&line), "{line}\n{page}");
        }
        assert!(!page.contains("SEC"), "{page}");
    }

    #[test]
    fn an_end_that_nobody_looks_into_has_its_bytes_by_direction_and_its_streams_and_a_thousand_ends_have_them_at_most()
    {
        let traffic = Traffic::default();
        traffic.sent(7);
        traffic.received(3);
        traffic.finished.store(2, Relaxed);
        traffic.refused.store(1, Relaxed);
        traffic.streams.store(4, Relaxed);
        let end = |n: u64| ExchangeMetrics {
            connection: ConnectionId::new(n, [0; 10]),
            role: Role::Listener,
            passed: Passed::of(&traffic),
            numbers: None,
        };
        let mut registry = Registry::with_prefix("gatewayd");
        register(&mut registry, (0..MAX_ENDS as u64 + 5).map(end).collect());
        let mut page = String::new();
        assert_eq!(encode(&mut page, &registry), Ok(()));
        let id = end(0).connection;
        for line in [
            format!("gatewayd_connection_bytes_total{{connection=\"{id}\",role=\"listener\",direction=\"to_peer\"}} 7"),
            format!(
                "gatewayd_connection_bytes_total{{connection=\"{id}\",role=\"listener\",direction=\"from_peer\"}} 3"
            ),
            format!("gatewayd_connection_streams_total{{connection=\"{id}\",role=\"listener\",end=\"finished\"}} 2"),
            format!("gatewayd_connection_streams_total{{connection=\"{id}\",role=\"listener\",end=\"reset\"}} 0"),
            format!("gatewayd_connection_streams_total{{connection=\"{id}\",role=\"listener\",end=\"refused\"}} 1"),
            format!("gatewayd_connection_streams_open{{connection=\"{id}\",role=\"listener\"}} 4"),
        ] {
            assert!(page.contains(&line), "{line}\n{page}");
        }
        let lines = page.lines().filter(|line| line.starts_with("gatewayd_connection_streams_open{")).count();
        assert_eq!(lines, MAX_ENDS);
    }
}
