//! The instruments of the control plane: all of them, in one place. Labels come from small closed sets.

use gateway_proto::audit::heads::HeadFault;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{storage::queries_run, turns::TurnCounts, watchers::Dropped};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fault {
    fault: &'static str,
}

/// The instruments.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Class, Counter>,
    enrollments: Family<Outcome, Counter>,
    watches: Gauge,
    policies: Counter,
    deltas: Counter,
    reports_dropped: Counter,
    counts_dropped: Counter,
    audit_faults: Family<Fault, Counter>,
    seconds_refused: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("gateway_control");
        let requests = Family::default();
        registry.register("http_requests", "Answers by class of status", requests.clone());
        let enrollments = Family::default();
        registry.register("enrollments", "Enrolments by outcome", enrollments.clone());
        let watches = Gauge::default();
        registry.register("watches", "Gateways that watch their policy now", watches.clone());
        let policies = Counter::default();
        registry.register("policies_sent", "Policies sent over watches", policies.clone());
        let deltas = Counter::default();
        registry.register("policy_deltas_sent", "Of the policies sent, those sent as what changes", deltas.clone());
        let reports_dropped = Counter::default();
        registry.register(
            "reports_dropped",
            "Reports about connections that are not in the reporting gateway's policy",
            reports_dropped.clone(),
        );
        let counts_dropped = Counter::default();
        registry.register(
            "counts_dropped",
            "Counts for the delivery proof that had to wait for the gateway's next ones, because too many were not entered yet",
            counts_dropped.clone(),
        );
        let audit_faults = Family::default();
        registry.register(
            "audit_faults",
            "Heads of gateways' audit logs that contradicted what was reported before, as told to the audit log",
            audit_faults.clone(),
        );
        let seconds_refused = Counter::default();
        registry.register(
            "seconds_refused",
            "Watches that were refused because another process with the same key holds the place of the gateway",
            seconds_refused.clone(),
        );
        registry.register("database_queries", "Queries run by this process", queries_run());
        Self {
            registry,
            requests,
            enrollments,
            watches,
            policies,
            deltas,
            reports_dropped,
            counts_dropped,
            audit_faults,
            seconds_refused,
        }
    }
}

impl Metrics {
    /// Shows how many requests have turns, wait for one and got none.
    pub(crate) fn show_turns(&mut self, turns: impl IntoIterator<Item = (&'static str, TurnCounts)>) {
        for (kind, counts) in turns {
            let name = |what: &str| format!("{kind}_{what}");
            let at_work = "Requests of this kind that have a turn: at the database, or at a computation of passwords";
            self.registry.register(name("at_work"), at_work, counts.at_work);
            let waiting = "Requests of this kind that wait for others of their organization or address";
            self.registry.register(name("waiting"), waiting, counts.waiting);
            let refused = "Requests of this kind that got no turn: too many waited, or they waited for too long";
            self.registry.register(name("refused"), refused, counts.refused);
        }
    }

    /// Shows how much was not written down beside an answer.
    pub(crate) fn show_notes_dropped(&mut self, dropped: Counter) {
        let what = "Uses of tokens and refused sign-ins that are not written down, because too many of their organization waited";
        self.registry.register("notes_dropped", what, dropped);
    }

    pub(crate) fn request(&self, status: u16) {
        self.requests.get_or_create(&Class { status: format!("{}xx", status / 100) }).inc();
    }

    pub(crate) fn enrollment(&self, done: bool) {
        self.enrollments.get_or_create(&Outcome { outcome: if done { "done" } else { "refused" } }).inc();
    }

    pub(crate) fn watches(&self, count: usize) {
        self.watches.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn second_refused(&self) {
        self.seconds_refused.inc();
    }

    pub(crate) fn policy_sent(&self, is_delta: bool) {
        self.policies.inc();
        self.deltas.inc_by(u64::from(is_delta));
    }

    pub(crate) fn reports_dropped(&self, dropped: Dropped) {
        self.reports_dropped.inc_by(dropped.reports as u64);
        self.counts_dropped.inc_by(dropped.counts as u64);
    }

    pub(crate) fn audit_fault(&self, fault: Option<HeadFault>) {
        if let Some(fault) = fault {
            self.audit_faults.get_or_create(&Fault { fault: fault.code() }).inc();
        }
    }

    /// The text for Prometheus; none when it cannot be written.
    pub fn text(&self) -> Option<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).ok()?;
        Some(text)
    }
}
