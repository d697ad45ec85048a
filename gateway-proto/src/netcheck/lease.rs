//! What a router's answer to a request for a port is worth (PCP, RFC 6887; NAT-PMP, RFC 6886).
//!
//! Everything in it is a claim of the local network. The outer address is offered to partners only where it can be one of
//! the internet; the lifetime decides when to ask again, within our own limits; the router's epoch tells whether it was
//! restarted, and so forgot what it had granted (RFC 6886, section 3.6).

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use crate::path::is_public;

/// What is asked for: a mapping of a gateway that was killed lives on for so long.
pub const LEASE: Duration = Duration::from_secs(600);
/// Asked again no later than this, however long the lifetime is: a router that was restarted has it again by then.
const RENEWAL: Duration = Duration::from_secs(120);
/// A shorter lifetime is none: keeping it would be a storm of questions.
const SHORTEST: Duration = Duration::from_secs(20);
/// What two clocks may differ by (RFC 6886, section 3.6).
const EPOCH_TOLERANCE: u64 = 2;

/// A port that a router granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    outer: SocketAddrV4,
    lifetime: Duration,
    /// Seconds since the router began to count; none: the protocol has no such thing.
    epoch: Option<u32>,
    granted_at: Instant,
}

/// Why a granted port is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It would end before it could be kept.
    #[error("the router grants a port for {0} s only, less than the {limit} s that can be kept", limit = SHORTEST.as_secs())]
    TooShort(u64),
    /// It cannot be an address of the internet.
    #[error("the router's own outer address is not public: it is behind another NAT, where no port can be asked for")]
    NotPublic,
}

impl Lease {
    /// What the router granted at `now`. A `lifetime` of zero seconds is a refusal in other words.
    pub fn new(outer: SocketAddrV4, lifetime: u32, epoch: Option<u32>, now: Instant) -> Result<Self, LeaseError> {
        let lifetime = Duration::from_secs(lifetime.into());
        if lifetime < SHORTEST {
            return Err(LeaseError::TooShort(lifetime.as_secs()));
        }
        Ok(Self { outer, lifetime, epoch, granted_at: now })
    }

    /// One without an end, or whose end the router keeps to itself.
    pub fn lasting(outer: SocketAddrV4, now: Instant) -> Self {
        Self { outer, lifetime: LEASE, epoch: None, granted_at: now }
    }

    /// The outer port.
    pub fn port(&self) -> u16 {
        self.outer.port()
    }

    /// The address to offer to partners.
    pub fn outer(&self) -> Result<SocketAddr, LeaseError> {
        if is_public(*self.outer.ip()) && self.outer.port() != 0 {
            Ok(self.outer.into())
        } else {
            Err(LeaseError::NotPublic)
        }
    }

    /// When to ask for it again: half-way through, and early enough after a restart of the router.
    pub fn renew_at(&self) -> Instant {
        self.granted_at + (self.lifetime / 2).min(RENEWAL)
    }

    /// Whether the router began to count anew between this grant and the next one.
    pub fn was_forgotten_before(&self, next: &Self) -> bool {
        let (Some(before), Some(after)) = (self.epoch, next.epoch) else { return false };
        let passed = next.granted_at.saturating_duration_since(self.granted_at).as_secs();
        // Its clock may be slower than ours by an eighth.
        u64::from(after) + EPOCH_TOLERANCE < u64::from(before) + passed * 7 / 8
    }
}

/// The outer address of an answer over UDP, as far as it is one.
pub fn outer_ipv4(ip: std::net::IpAddr) -> Option<Ipv4Addr> {
    match ip {
        std::net::IpAddr::V4(ip) => Some(ip),
        std::net::IpAddr::V6(ip) => ip.to_ipv4_mapped(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use proptest::prelude::*;

    use super::*;

    const OUTER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 7070);

    fn granted(lifetime: u32, epoch: u32, now: Instant) -> Lease {
        Lease::new(OUTER, lifetime, Some(epoch), now).unwrap()
    }

    #[test]
    fn a_lease_is_renewed_half_way_through_and_no_later_than_after_two_minutes() {
        let now = Instant::now();
        for (lifetime, secs) in [(20, 10), (60, 30), (240, 120), (600, 120), (7200, 120), (u32::MAX, 120)] {
            assert_eq!(granted(lifetime, 0, now).renew_at() - now, Duration::from_secs(secs), "{lifetime}");
        }
        assert_eq!(Lease::lasting(OUTER, now).renew_at() - now, RENEWAL);
    }

    #[test]
    fn a_lifetime_that_cannot_be_kept_is_a_refusal() {
        for lifetime in [0, 1, 19] {
            let refused = Lease::new(OUTER, lifetime, Some(0), Instant::now());
            assert_eq!(refused, Err(LeaseError::TooShort(lifetime.into())));
        }
    }

    #[test]
    fn addresses_that_are_none_of_the_internet_are_not_offered() {
        let own = [
            "10.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.0.9",
        ];
        for ip in own {
            let outer = SocketAddrV4::new(ip.parse().unwrap(), 7070);
            let lease = Lease::new(outer, 600, None, Instant::now()).unwrap();
            assert_eq!(lease.outer(), Err(LeaseError::NotPublic), "{ip}");
        }
        let no_port = Lease::lasting(SocketAddrV4::new(*OUTER.ip(), 0), Instant::now());
        assert!(no_port.outer().is_err());
        assert_eq!(granted(600, 0, Instant::now()).outer(), Ok(OUTER.into()));
    }

    #[test]
    fn a_router_that_counts_anew_was_restarted_and_one_whose_clock_is_a_little_slow_was_not() {
        let now = Instant::now();
        let (first, later) = (granted(600, 1_000, now), now + Duration::from_secs(120));
        for (epoch, forgotten) in
            [(1_120, false), (1_104, false), (1_102, true), (3, true), (0, true), (u32::MAX, false)]
        {
            assert_eq!(first.was_forgotten_before(&granted(600, epoch, later)), forgotten, "{epoch}");
        }
        let without = Lease::lasting(OUTER, later);
        assert!(!first.was_forgotten_before(&without) && !without.was_forgotten_before(&first));
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_storm_or_a_panic(outer in any::<[u8; 4]>(), port in any::<u16>(), lifetime in any::<u32>(), epochs in any::<[u32; 2]>(), passed in 0_u64..1 << 33) {
            let now = Instant::now();
            let outer = SocketAddrV4::new(outer.into(), port);
            let Ok(first) = Lease::new(outer, lifetime, Some(epochs[0]), now) else { return Ok(()) };
            let pause = first.renew_at() - now;
            prop_assert!(pause >= SHORTEST / 2 && pause <= RENEWAL);
            if let Ok(offered) = first.outer() {
                prop_assert!(is_public(*outer.ip()) && offered.port() != 0);
            }
            let Ok(next) = Lease::new(outer, lifetime, Some(epochs[1]), now + Duration::from_secs(passed)) else { return Ok(()) };
            let _ = first.was_forgotten_before(&next);
            prop_assert!(!next.was_forgotten_before(&first) || epochs[0] < epochs[1], "time does not go back");
        }
    }
}
