//! Every instrument of the relay: name, unit, meaning. Labels come from closed sets; no gateway is ever named.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Kind {
    Datagrams,
    Signal,
    /// Datagrams sent over UDP.
    UdpTrain,
}

/// Why a frame was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum DropReason {
    /// The destination's queue is full.
    QueueFull,
    /// Nobody with that key is attached.
    PeerAbsent,
    /// The sender is over its rate.
    RateLimited,
    /// The destination left at this moment.
    PeerLeft,
    /// The sender's organization is over its rate.
    OrganizationRate,
    /// A source that held more of the queue gave way to another.
    Displaced,
    /// A UDP datagram of no session.
    NoSession,
    /// A UDP datagram for a slot nobody has.
    NoSlot,
    /// A UDP datagram without the session's MAC.
    BadMac,
    /// A UDP datagram seen before.
    Replayed,
    /// A UDP datagram too short, or out of turn.
    Malformed,
    /// The kernel had no room for a UDP train.
    SocketFull,
    /// The kernel could not send a UDP train.
    SendFailed,
}

/// Why a connection was closed right after the accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum RejectReason {
    /// Too many connections per second in all.
    Rate,
    /// Too many connections per second from one address.
    SourceRate,
    /// Too many connections open.
    Full,
    /// Too many connections open from one address.
    SourceFull,
}

/// Why a link was refused or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum EndReason {
    Malformed,
    BadToken,
    Expired,
    WrongRelay,
    BadProof,
    Busy,
    Replaced,
    /// The gateway closed.
    Left,
    /// The connection broke.
    Broken,
    /// No sign of life.
    Silent,
    /// No proof in time.
    AdmissionTimeout,
    /// The relay stops.
    Shutdown,
    /// Another process with the same key has the place.
    RunsTwice,
    /// Any other refusal.
    Other,
}

/// What became of a STUN request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum StunOutcome {
    Answered,
    RateLimited,
    Invalid,
    SendFailed,
}

/// What became of an order for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum OrderOutcome {
    Issued,
    Failed,
}

/// What became of a changed certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum ReloadOutcome {
    Taken,
    Refused,
}

/// What became of a question for policy keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum KeysOutcome {
    /// Other keys count now.
    Taken,
    /// The same keys count.
    Unchanged,
    /// The answer was not believed, or could not be kept.
    Refused,
    /// There was no answer.
    Failed,
}

macro_rules! labels {
    ($($name:ident { $field:ident: $kind:ty }),*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            $field: $kind,
        }
    )*};
}

labels!(
    KindLabel { kind: Kind },
    DropLabel { reason: DropReason },
    RejectLabel { reason: RejectReason },
    EndLabel { reason: EndReason },
    StunLabel { outcome: StunOutcome },
    OrderLabel { outcome: OrderOutcome },
    ReloadLabel { outcome: ReloadOutcome },
    KeysLabel { outcome: KeysOutcome }
);

/// The instruments, shared by all tasks.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) clients: Gauge,
    pub(crate) attached: Counter,
    ended: Family<EndLabel, Counter>,
    forwarded_frames: Family<KindLabel, Counter>,
    forwarded_bytes: Family<KindLabel, Counter>,
    dropped: Family<DropLabel, Counter>,
    pub(crate) pings: Counter,
    pub(crate) accepted: Counter,
    rejected: Family<RejectLabel, Counter>,
    stun: Family<StunLabel, Counter>,
    orders: Family<OrderLabel, Counter>,
    pub(crate) certificate_expires: Gauge,
    reloads: Family<ReloadLabel, Counter>,
    keys_asked: Family<KeysLabel, Counter>,
    pub(crate) policy_keys: Gauge,
    pub(crate) policy_keys_confirmed: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("gateway_relay"),
            clients: Gauge::default(),
            attached: Counter::default(),
            ended: Family::default(),
            forwarded_frames: Family::default(),
            forwarded_bytes: Family::default(),
            dropped: Family::default(),
            pings: Counter::default(),
            accepted: Counter::default(),
            rejected: Family::default(),
            stun: Family::default(),
            orders: Family::default(),
            certificate_expires: Gauge::default(),
            reloads: Family::default(),
            keys_asked: Family::default(),
            policy_keys: Gauge::default(),
            policy_keys_confirmed: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("clients", "Gateways attached now", metrics.clients.clone());
        registry.register("attached", "Gateways admitted since the start", metrics.attached.clone());
        registry.register("links_ended", "Links refused or ended, by reason", metrics.ended.clone());
        registry.register(
            "forwarded_frames",
            "Frames put into the queue of their destination, and trains sent to it over UDP",
            metrics.forwarded_frames.clone(),
        );
        registry.register_with_unit(
            "forwarded",
            "Bytes of these frames and trains",
            Unit::Bytes,
            metrics.forwarded_bytes.clone(),
        );
        registry.register("dropped_frames", "Frames not forwarded, by reason", metrics.dropped.clone());
        registry.register("udp_pings", "Pings over UDP that were answered", metrics.pings.clone());
        registry.register("accepted_connections", "TCP connections accepted", metrics.accepted.clone());
        registry.register(
            "rejected_connections",
            "TCP connections closed at once, by reason",
            metrics.rejected.clone(),
        );
        registry.register(
            "stun_requests",
            "UDP packets that are not relayed datagrams, by outcome",
            metrics.stun.clone(),
        );
        registry.register("certificate_orders", "Certificates ordered by ACME, by outcome", metrics.orders.clone());
        registry.register(
            "certificate_expires",
            "When the certificate of the ACME authority expires, Unix seconds; 0: there is none",
            metrics.certificate_expires.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Changes of the TLS certificate's files, by outcome",
            metrics.reloads.clone(),
        );
        registry.register("policy_keys", "Policy keys whose tokens count now", metrics.policy_keys.clone());
        registry.register(
            "policy_keys_confirmed",
            "When the control plane last said which keys count, Unix seconds; 0: not since the start",
            metrics.policy_keys_confirmed.clone(),
        );
        registry.register(
            "policy_key_questions",
            "Questions to the control plane for its keys, by outcome",
            metrics.keys_asked.clone(),
        );
        metrics
    }

    pub(crate) fn reloaded(&self, outcome: ReloadOutcome) {
        self.reloads.get_or_create(&ReloadLabel { outcome }).inc();
    }

    pub(crate) fn keys_asked(&self, outcome: KeysOutcome) {
        self.keys_asked.get_or_create(&KeysLabel { outcome }).inc();
    }

    pub(crate) fn ordered(&self, outcome: OrderOutcome) {
        self.orders.get_or_create(&OrderLabel { outcome }).inc();
    }

    pub(crate) fn forwarded(&self, kind: Kind, bytes: usize) {
        let label = KindLabel { kind };
        self.forwarded_frames.get_or_create(&label).inc();
        self.forwarded_bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        self.dropped.get_or_create(&DropLabel { reason }).inc();
    }

    /// Counts what became of a frame that was to be queued: frames it displaced, or why it was dropped.
    pub(crate) fn queued(&self, kind: Kind, bytes: usize, result: Result<usize, DropReason>) {
        match result {
            Ok(displaced) => {
                self.forwarded(kind, bytes);
                if displaced > 0 {
                    let label = DropLabel { reason: DropReason::Displaced };
                    self.dropped.get_or_create(&label).inc_by(displaced as u64);
                }
            }
            Err(reason) => self.dropped(reason),
        }
    }

    pub(crate) fn rejected(&self, reason: RejectReason) {
        self.rejected.get_or_create(&RejectLabel { reason }).inc();
    }

    pub(crate) fn ended(&self, reason: EndReason) {
        self.ended.get_or_create(&EndLabel { reason }).inc();
    }

    pub(crate) fn stun_answered(&self, failed: bool) {
        self.stun(if failed { StunOutcome::SendFailed } else { StunOutcome::Answered });
    }

    pub(crate) fn stun(&self, outcome: StunOutcome) {
        self.stun.get_or_create(&StunLabel { outcome }).inc();
    }

    /// The OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("invariant: writing to a String does not fail");
        text
    }
}
