//! How the prefix of a network's NAT64 is found out: its DNS64 is asked (RFC 7050), and STUN servers that see an IPv4
//! address although they were asked over IPv6 show it too.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Nat64, Nat64Prefix};
use crate::backoff::Backoff;

/// The name that has IPv4 addresses only: its IPv6 addresses are a DNS64's (RFC 7050 §2). With the dot that keeps a resolver from
/// adding a domain.
pub const WELL_KNOWN_NAME: &str = "ipv4only.arpa.";
/// Between two look-ups on a network that stays the same: a translator may be given another prefix.
pub const LOOK_UP_AGAIN: Duration = Duration::from_secs(600);

/// After a look-up without an answer; doubles up to [`LOOK_UP_AGAIN`].
const RETRY: Duration = Duration::from_secs(2);
/// What was found lives so long without a name server that answers.
const KEPT: Duration = Duration::from_secs(3600);

/// Finds out the NAT64 of the network this machine is in. Only where there is a way out over IPv6 and none over IPv4: elsewhere
/// nothing needs a translation, and no name is looked up.
///
/// # Driving it
///
/// [`handle_network`](Self::handle_network) at the start and whenever the network changed. When
/// [`poll_timeout`](Self::poll_timeout) is due, resolve [`WELL_KNOWN_NAME`] and hand the answer to
/// [`handle_answer`](Self::handle_answer). After every input, [`nat64`](Self::nat64) is what is known.
#[derive(Debug)]
pub struct Discovery {
    /// From the DNS64.
    answered: Vec<Nat64Prefix>,
    /// From a STUN server.
    observed: Option<Nat64Prefix>,
    /// When a name server answered last on this network.
    answered_at: Option<Instant>,
    retries: Backoff,
    /// None: nothing is to be found out.
    due: Option<Instant>,
}

impl Default for Discovery {
    fn default() -> Self {
        let retries = Backoff::new(RETRY, LOOK_UP_AGAIN);
        Self { answered: Vec::new(), observed: None, answered_at: None, retries, due: None }
    }
}

impl Discovery {
    /// The network changed. `is_needed`: there is a way out over IPv6 and none over IPv4. What was known stays until the name servers
    /// of the new network have answered or failed: often it is the same network.
    pub fn handle_network(&mut self, is_needed: bool, now: Instant) {
        *self = Self {
            answered: if is_needed { std::mem::take(&mut self.answered) } else { Vec::new() },
            due: is_needed.then_some(now),
            ..Self::default()
        };
    }

    /// What [`WELL_KNOWN_NAME`] resolved to; none: no name server answered. `random` is any uniformly random number.
    pub fn handle_answer(&mut self, answer: Option<&[IpAddr]>, now: Instant, random: u32) {
        if self.due.is_none() {
            return;
        }
        let Some(answer) = answer else {
            if self.answered_at.is_none_or(|at| now.saturating_duration_since(at) >= KEPT) {
                self.answered.clear();
            }
            self.due = Some(now + self.retries.next_delay(random));
            return;
        };
        let found = Nat64Prefix::in_answer(answer.iter().copied());
        // Name servers turn the order round; the one in use stays in use.
        let used = self.answered.first().filter(|used| found.contains(used)).copied();
        self.answered = used.into_iter().chain(found.into_iter().filter(|prefix| Some(*prefix) != used)).collect();
        self.answered_at = Some(now);
        self.retries.reset();
        self.due = Some(now + LOOK_UP_AGAIN);
    }

    /// A STUN server that was asked over IPv6 saw an IPv4 address, and its own two addresses show this prefix: there is a translator
    /// between, whether or not its DNS64 knows the well-known name.
    pub fn handle_observed(&mut self, prefix: Nat64Prefix) {
        if self.due.is_some() {
            self.observed = Some(prefix);
        }
    }

    /// What is known.
    pub fn nat64(&self) -> Nat64 {
        Nat64::new(self.answered.iter().copied().chain(self.observed))
    }

    /// When the name is to be looked up; none: not before the network changes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other source; tests only add to it")]
    fn start() -> Instant {
        Instant::now()
    }

    fn prefix(text: &str) -> Nat64Prefix {
        Nat64Prefix::new(text.parse().unwrap(), 96).unwrap()
    }

    fn answer(prefixes: &[&str]) -> Vec<IpAddr> {
        let of = |text: &&str| [170, 171].map(|last| IpAddr::from(prefix(text).embed(Ipv4Addr::new(192, 0, 0, last))));
        prefixes.iter().flat_map(of).collect()
    }

    #[test]
    fn nothing_is_looked_up_and_nothing_known_where_ipv4_has_a_way_of_its_own() {
        let (mut discovery, now) = (Discovery::default(), start());
        discovery.handle_network(false, now);
        assert_eq!(discovery.poll_timeout(), None);
        discovery.handle_observed(prefix("64:ff9b::"));
        discovery.handle_answer(Some(&answer(&["64:ff9b::"])), now, 0);
        assert_eq!(discovery.nat64(), Nat64::default(), "an answer that came too late");
        discovery.handle_network(true, now);
        assert_eq!(discovery.poll_timeout(), Some(now));
        discovery.handle_answer(Some(&answer(&["64:ff9b::"])), now, 0);
        assert_eq!(discovery.nat64().prefix(), Some(prefix("64:ff9b::")));
        discovery.handle_network(false, now + SECOND);
        assert_eq!((discovery.nat64(), discovery.poll_timeout()), (Nat64::default(), None));
    }

    #[test]
    fn what_is_known_is_looked_up_again_and_the_prefix_in_use_stays_first() {
        let (mut discovery, now) = (Discovery::default(), start());
        discovery.handle_network(true, now);
        discovery.handle_answer(Some(&answer(&["64:ff9b::", "2001:db8::"])), now, 0);
        assert_eq!(discovery.poll_timeout(), Some(now + LOOK_UP_AGAIN));
        discovery.handle_answer(Some(&answer(&["2001:db8::", "64:ff9b::"])), now + LOOK_UP_AGAIN, 0);
        assert_eq!(discovery.nat64().prefix(), Some(prefix("64:ff9b::")));
        discovery.handle_answer(Some(&answer(&["2001:db8::"])), now + 2 * LOOK_UP_AGAIN, 0);
        assert_eq!(discovery.nat64().prefix(), Some(prefix("2001:db8::")), "it is gone");
        discovery.handle_answer(Some(&[]), now + 3 * LOOK_UP_AGAIN, 0);
        assert_eq!(discovery.nat64(), Nat64::default());
    }

    #[test]
    fn without_an_answer_it_is_asked_again_and_what_is_known_ends_with_its_network_or_after_an_hour() {
        let (mut discovery, now) = (Discovery::default(), start());
        discovery.handle_network(true, now);
        discovery.handle_answer(None, now, u32::MAX);
        assert_eq!(discovery.poll_timeout(), Some(now + RETRY));
        discovery.handle_answer(None, now, u32::MAX);
        assert_eq!(discovery.poll_timeout(), Some(now + 2 * RETRY));
        discovery.handle_answer(Some(&answer(&["64:ff9b::"])), now, 0);
        discovery.handle_answer(None, now + KEPT - SECOND, 0);
        assert!(discovery.nat64().prefix().is_some());
        discovery.handle_answer(None, now + KEPT, 0);
        assert_eq!(discovery.nat64().prefix(), None);
        discovery.handle_answer(Some(&answer(&["64:ff9b::"])), now + KEPT, 0);
        discovery.handle_network(true, now + KEPT);
        assert!(discovery.nat64().prefix().is_some(), "the change may have been another one");
        discovery.handle_answer(None, now + KEPT, 0);
        assert_eq!(discovery.nat64().prefix(), None, "nobody says that it is there too");
    }

    #[test]
    fn a_translator_that_a_stun_server_shows_is_known_until_the_network_changes() {
        let (mut discovery, now) = (Discovery::default(), start());
        discovery.handle_network(true, now);
        discovery.handle_answer(Some(&[]), now, 0);
        discovery.handle_observed(prefix("2001:db8:6464::"));
        assert_eq!(discovery.nat64().prefix(), Some(prefix("2001:db8:6464::")));
        discovery.handle_answer(Some(&answer(&["64:ff9b::"])), now, 0);
        assert_eq!(discovery.nat64().prefix(), Some(prefix("64:ff9b::")), "what the DNS64 says comes first");
        discovery.handle_network(true, now + SECOND);
        assert_eq!(discovery.nat64(), Nat64::new([prefix("64:ff9b::")]));
    }
}
