//! What one gateway may spend, whichever way its bytes come, and what its organization may spend in all.
//!
//! A link and its UDP session share one [`Budget`]; the gateways of an organization share one quota. The table of organizations holds no
//! more entries than there are links: the last link of an organization takes its entry along.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use gateway_proto::{
    id::OrganizationId,
    relay::{Limit, LimitKind, LimitWatch, TokenBucket},
};

use crate::{
    config::Limits,
    metrics::{DropReason, Kind},
};

/// Hints that a peer is not here: a hint for each peer of a site now and then, not for each of its packets.
const HINTS_PER_SECOND: NonZeroU64 = NonZeroU64::new(5).expect("invariant: not zero");
/// Pings answered, over the WebSocket and UDP together: while an answer is overdue a gateway sends ten a second.
const PINGS_PER_SECOND: NonZeroU64 = NonZeroU64::new(20).expect("invariant: not zero");
const PING_BURST: NonZeroU64 = NonZeroU64::new(60).expect("invariant: not zero");
/// Slots bound, limits told and pongs, which are charged nowhere else. After a restart a gateway binds a slot for each of its peers.
const CONTROL_PER_SECOND: NonZeroU64 = NonZeroU64::new(100).expect("invariant: not zero");
const CONTROL_BURST: NonZeroU64 = NonZeroU64::new(500).expect("invariant: not zero");
/// After a restart a gateway greets all its peers at once.
const SIGNAL_BURST_SECONDS: NonZeroU64 = NonZeroU64::new(5).expect("invariant: not zero");

/// The share of one gateway.
#[derive(Debug)]
pub(crate) struct Budget {
    buckets: Mutex<Buckets>,
    organization: Arc<Quota>,
}

#[derive(Debug)]
struct Buckets {
    bytes: Option<TokenBucket>,
    signals: TokenBucket,
    hints: TokenBucket,
    pings: TokenBucket,
    control: TokenBucket,
    limits: LimitWatch,
}

impl Budget {
    pub(crate) fn new(limits: &Limits, organization: Arc<Quota>, now: Instant) -> Self {
        let signals = limits.signals_per_second;
        let bytes = limits.client_bytes_per_second;
        let buckets = Buckets {
            bytes: bytes.map(|rate| TokenBucket::new(rate, limits.client_burst_bytes, now)),
            signals: TokenBucket::new(signals, signals.saturating_mul(SIGNAL_BURST_SECONDS), now),
            hints: TokenBucket::new(HINTS_PER_SECOND, HINTS_PER_SECOND, now),
            pings: TokenBucket::new(PINGS_PER_SECOND, PING_BURST, now),
            control: TokenBucket::new(CONTROL_PER_SECOND, CONTROL_BURST, now),
            limits: LimitWatch::default(),
        };
        Self { buckets: Mutex::new(buckets), organization }
    }

    /// Charges what is to be forwarded. Refused: why, and how long until there would be room.
    pub(crate) fn charge(&self, kind: Kind, length: usize, now: Instant) -> Result<(), (DropReason, Duration)> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |pause| (DropReason::RateLimited, pause);
        if kind == Kind::Signal {
            buckets.signals.take(1, now).map_err(own)?;
        }
        let bytes = buckets.bytes.as_mut().map_or(Ok(()), |bytes| bytes.take(length as u64, now));
        let charged = bytes
            .map_err(|pause| (LimitKind::Gateway, pause))
            .and_then(|()| self.organization.charge(length, now).map_err(|pause| (LimitKind::Organization, pause)));
        buckets.limits.count(charged.err().map(|(kind, _)| kind), now);
        charged.map_err(|(kind, pause)| match kind {
            LimitKind::Organization => (DropReason::OrganizationRate, pause),
            LimitKind::Gateway | LimitKind::Other(_) => own(pause),
        })
    }

    /// A limit to tell the gateway of, because much of what it sends is dropped: once in some seconds.
    pub(crate) fn limit_to_tell(&self) -> Option<Limit> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).limits.take()
    }

    /// Whether one more ping is answered.
    pub(crate) fn ping(&self, now: Instant) -> bool {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).pings.take(1, now).is_ok()
    }

    /// How long to pause reading after a frame that is for the relay itself: such frames are never dropped, because nobody sends them
    /// again.
    pub(crate) fn control(&self, now: Instant) -> Duration {
        let taken = self.buckets.lock().unwrap_or_else(PoisonError::into_inner).control.take(1, now);
        taken.err().unwrap_or_default()
    }

    /// Whether one more hint is given.
    pub(crate) fn hint(&self, now: Instant) -> bool {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).hints.take(1, now).is_ok()
    }
}

/// The share of an organization.
#[derive(Debug)]
pub(crate) struct Quota {
    bytes: Option<Mutex<TokenBucket>>,
}

impl Quota {
    fn charge(&self, length: usize, now: Instant) -> Result<(), Duration> {
        let Some(bytes) = &self.bytes else { return Ok(()) };
        bytes.lock().unwrap_or_else(PoisonError::into_inner).take(length as u64, now)
    }
}

/// The quotas of the organizations that have links.
#[derive(Debug, Default)]
pub(crate) struct Organizations(Mutex<HashMap<OrganizationId, Weak<Quota>>>);

/// The organization has as many gateways here as it may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Organizations {
    /// The quota of an organization for one more link, or for one that takes the place of another (`replaces`): a gateway whose
    /// old link died unseen can come back when its organization is at its limit.
    pub(crate) fn join(
        &self,
        id: OrganizationId,
        replaces: bool,
        limits: &Limits,
        now: Instant,
    ) -> Result<Arc<Quota>, TooMany> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = table.get(&id).and_then(Weak::upgrade) {
            // This map's own upgrade above counts as one.
            let most = limits.organization_clients.saturating_add(usize::from(replaces));
            return if Arc::strong_count(&quota) > most { Err(TooMany) } else { Ok(quota) };
        }
        // Whoever comes clears away what others left.
        table.retain(|_, quota| quota.strong_count() > 0);
        let rate = limits.organization_bytes_per_second;
        let bytes = rate.map(|rate| Mutex::new(TokenBucket::new(rate, limits.organization_burst_bytes, now)));
        let quota = Arc::new(Quota { bytes });
        table.insert(id, Arc::downgrade(&quota));
        Ok(quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limits() -> Limits {
        let config = Config::load(std::path::Path::new("tests/config/valid/minimal.toml")).unwrap();
        Limits {
            client_bytes_per_second: None,
            organization_bytes_per_second: NonZeroU64::new(1_000),
            organization_burst_bytes: NonZeroU64::new(10_000).unwrap(),
            organization_clients: 2,
            ..config.limits
        }
    }

    #[test]
    fn the_gateways_of_an_organization_share_its_quota_and_no_other_ones() {
        let (limits, now, organizations) = (limits(), Instant::now(), Organizations::default());
        let join = |id| {
            let quota = organizations.join(OrganizationId::from_bytes([id; 16]), false, &limits, now).unwrap();
            Budget::new(&limits, quota, now)
        };
        let (one, two, other) = (join(1), join(1), join(2));
        assert!(one.charge(Kind::Datagrams, 9_000, now).is_ok());
        assert_eq!(two.charge(Kind::Datagrams, 2_000, now).unwrap_err().0, DropReason::OrganizationRate);
        assert!(two.charge(Kind::Datagrams, 1_000, now).is_ok());
        assert!(other.charge(Kind::Datagrams, 10_000, now).is_ok());
    }

    #[test]
    fn an_organization_has_no_more_gateways_than_it_may_and_leaves_nothing_behind() {
        let (limits, now, organizations) = (limits(), Instant::now(), Organizations::default());
        let id = OrganizationId::from_bytes([1; 16]);
        let join = |id, replaces| organizations.join(id, replaces, &limits, now);
        let one = join(id, false).unwrap();
        let two = join(id, false).unwrap();
        assert_eq!(join(id, false).unwrap_err(), TooMany);
        drop(one);
        let three = join(id, false).unwrap();
        drop((two, three));
        join(OrganizationId::from_bytes([2; 16]), false).unwrap();
        assert_eq!(organizations.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn who_comes_back_while_its_old_link_is_not_known_to_be_dead_finds_its_place_once() {
        let (limits, now, organizations) = (limits(), Instant::now(), Organizations::default());
        let join = |replaces| organizations.join(OrganizationId::from_bytes([1; 16]), replaces, &limits, now);
        let links = [join(false).unwrap(), join(false).unwrap(), join(true).unwrap()];
        assert_eq!(join(true).unwrap_err(), TooMany);
        drop(links);
    }

    #[test]
    fn frames_that_cost_nothing_to_send_are_read_at_a_pace() {
        let (limits, now, organizations) = (limits(), Instant::now(), Organizations::default());
        let quota = organizations.join(OrganizationId::from_bytes([1; 16]), false, &limits, now).unwrap();
        let budget = Budget::new(&limits, quota, now);
        assert_eq!((0..1_000).filter(|_| budget.control(now).is_zero()).count(), 500);
        assert_eq!(budget.control(now), Duration::from_millis(10));
        assert!(budget.ping(now), "pings are not kept waiting by them");
    }

    #[test]
    fn pings_and_hints_have_buckets_of_their_own() {
        let (limits, now, organizations) = (limits(), Instant::now(), Organizations::default());
        let quota = organizations.join(OrganizationId::from_bytes([1; 16]), false, &limits, now).unwrap();
        let budget = Budget::new(&limits, quota, now);
        assert_eq!((0..1_000).filter(|_| budget.ping(now)).count(), 60);
        assert_eq!((0..1_000).filter(|_| budget.hint(now)).count(), 5);
        assert!(budget.charge(Kind::Datagrams, 10_000, now).is_ok());
    }
}
