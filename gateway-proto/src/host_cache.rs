//! What the name servers said of hosts that are asked for again and again: the STUN servers, every twenty seconds and for ever.
//!
//! The machine's resolver tells no lifetime, so an answer counts for five minutes, a little less by chance. A host is asked for anew at
//! once when a server of it stops answering that answered before (once a minute at most: packets are lost for other reasons too), and
//! when the network changes: the other one may have other name servers, and another DNS64. Of a name that does not resolve the former addresses stay in use; it is asked for again after 15 s,
//! doubling to five minutes. Of one that never did there is nothing to go on with (the gateway may have started before the name server): its pauses double to 30 s.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::backoff::Backoff;

/// An answer counts for so long, and down to three quarters of it by chance: the gateways of a fleet do not ask together.
const KEPT: Duration = Duration::from_secs(300);
/// After an answer no silence counts for so long.
const ANEW: Duration = Duration::from_secs(60);
/// First and longest pause after a name did not resolve.
const PAUSES: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));
/// The longest while no address is known.
const NOTHING_KNOWN: Duration = Duration::from_secs(30);
/// Hosts remembered: more than the STUN servers of any relay map in use. Of more, the one used longest ago goes.
pub const MAX_HOSTS: usize = 64;
/// Addresses remembered of each.
pub const MAX_ADDRESSES: usize = 8;
/// Ports of an address of which it is remembered that they answer.
const MAX_PORTS: usize = 8;

/// See the module's description. Every host is asked for by whoever finds it to be due, and what comes of it is told.
#[derive(Debug, Default)]
pub struct HostCache {
    hosts: BTreeMap<String, Host>,
    network: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Host {
    addresses: Vec<Address>,
    /// When the name servers said something last.
    asked_at: Instant,
    due_at: Instant,
    used_at: Instant,
    pauses: Backoff,
}

#[derive(Debug)]
struct Address {
    ip: IpAddr,
    /// The ports at which somebody answered, and was not silent since.
    answering: BTreeSet<u16>,
}

impl HostCache {
    /// The number of the network this machine is in; with another one nothing of before counts.
    pub fn on_network(&mut self, network: u64) {
        if std::mem::replace(&mut self.network, network) != network {
            self.hosts.clear();
        }
    }

    /// The addresses of a host, in the resolver's order, without asking; none: it has to be asked for. Of a name that did not
    /// resolve a moment ago there is no address.
    pub fn known(&mut self, host: &str, now: Instant) -> Option<Vec<IpAddr>> {
        let known = self.hosts.get_mut(host)?;
        known.used_at = now;
        (now < known.due_at).then(|| known.ips())
    }

    /// What came of asking: addresses, none when the name did not resolve. Gives those to use. `network` is the one that was asked on:
    /// an answer from another one is not kept. `random` is any uniformly random number.
    pub fn asked(&mut self, host: &str, found: Vec<IpAddr>, network: u64, random: u32, now: Instant) -> Vec<IpAddr> {
        if network != self.network {
            return found;
        }
        let known = self.of(host, now);
        known.asked_at = now;
        if found.is_empty() {
            known.due_at = now + known.pauses.next_delay(random);
            return known.ips();
        }
        let mut former: BTreeMap<_, _> = known.addresses.drain(..).map(|known| (known.ip, known.answering)).collect();
        let address = |ip| Address { ip, answering: former.remove(&ip).unwrap_or_default() };
        known.addresses = found.into_iter().take(MAX_ADDRESSES).map(address).collect();
        known.pauses = Backoff::new(PAUSES.0, PAUSES.1);
        let quarter = KEPT / 4;
        known.due_at = now + KEPT - quarter.mul_f64(f64::from(random) / f64::from(u32::MAX));
        known.ips()
    }

    /// Somebody answered at that port of an address; `is_it` tells it from others.
    pub fn answered(&mut self, is_it: impl Fn(IpAddr) -> bool, port: u16) {
        let addresses = self.hosts.values_mut().flat_map(|host| &mut host.addresses);
        for address in addresses.filter(|address| is_it(address.ip) && address.answering.len() < MAX_PORTS) {
            address.answering.insert(port);
        }
    }

    /// Nobody answers there. True: somebody did before, so the host is due now, for it may have moved.
    pub fn silent(&mut self, is_it: impl Fn(IpAddr) -> bool, port: u16, now: Instant) -> bool {
        let mut is_due = false;
        for host in self.hosts.values_mut() {
            let mut addresses = host.addresses.iter_mut().filter(|address| is_it(address.ip));
            if addresses.any(|address| address.answering.remove(&port)) {
                let due_at = now.max(host.asked_at + ANEW);
                host.due_at = host.due_at.min(due_at);
                is_due |= due_at <= now;
            }
        }
        is_due
    }

    /// Hosts pushed out by others.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn of(&mut self, host: &str, now: Instant) -> &mut Host {
        if !self.hosts.contains_key(host) && self.hosts.len() >= MAX_HOSTS {
            let oldest = self.hosts.iter().min_by_key(|(_, known)| known.used_at).map(|(name, _)| name.clone());
            self.evicted += u64::from(oldest.and_then(|name| self.hosts.remove(&name)).is_some());
        }
        self.hosts.entry(host.to_owned()).or_insert_with(|| Host {
            addresses: Vec::new(),
            asked_at: now,
            due_at: now,
            used_at: now,
            pauses: Backoff::new(PAUSES.0, NOTHING_KNOWN),
        })
    }
}

impl Host {
    fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|address| address.ip).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const STUN: &str = "relay-1.example";

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn is(wanted: IpAddr) -> impl Fn(IpAddr) -> bool {
        move |ip| ip == wanted
    }

    /// Asks every so often, as long as that, what `name_servers` say at that time; gives when it asked, in seconds.
    fn look_up(
        cache: &mut HostCache,
        every: u64,
        [from, to]: [u64; 2],
        start: Instant,
        name_servers: impl Fn(u64) -> Vec<IpAddr>,
    ) -> Vec<u64> {
        let mut asked = Vec::new();
        for at in (from..to).step_by(every as usize) {
            let now = start + Duration::from_secs(at);
            if cache.known(STUN, now).is_none() {
                asked.push(at);
                cache.asked(STUN, name_servers(at), 0, at as u32 * 7_919, now);
            }
        }
        asked
    }

    #[test]
    fn a_host_that_answers_is_asked_for_once_in_five_minutes_however_often_it_is_used() {
        let (mut cache, start) = (HostCache::default(), Instant::now());
        let asked = look_up(&mut cache, 5, [0, 86_400], start, |_| vec![ip(1), ip(2)]);
        assert!((288..=384).contains(&asked.len()), "{} questions in a day", asked.len());
        assert!(asked.windows(2).all(|two| (225..=305).contains(&(two[1] - two[0]))), "{asked:?}");
        assert_eq!(cache.known(STUN, start + 86_400 * SECOND), Some(vec![ip(1), ip(2)]));
    }

    #[test]
    fn a_host_that_stops_answering_is_asked_for_at_once_and_once() {
        let (mut cache, now) = (HostCache::default(), Instant::now());
        assert_eq!(cache.known(STUN, now), None);
        cache.asked(STUN, vec![ip(1), ip(2)], 0, 0, now);
        cache.answered(is(ip(1)), 3478);
        let later = now + 100 * SECOND;
        for (silent, port) in [(ip(2), 3478), (ip(1), 3479), (ip(9), 3478)] {
            assert!(!cache.silent(is(silent), port, later), "nobody ever answered there");
        }
        assert!(cache.known(STUN, later).is_some(), "the name servers do not mend UDP that is blocked");
        assert!(cache.silent(is(ip(1)), 3478, later));
        assert_eq!(cache.known(STUN, later), None);
        assert_eq!(cache.asked(STUN, vec![ip(3)], 0, 0, later), [ip(3)], "it has moved");
        assert!(!cache.silent(is(ip(3)), 3478, later) && !cache.silent(is(ip(1)), 3478, later));
        assert_eq!(cache.known(STUN, later), Some(vec![ip(3)]));
    }

    #[test]
    fn a_line_that_loses_much_has_names_looked_up_once_a_minute_at_most() {
        let (mut cache, start) = (HostCache::default(), Instant::now());
        let mut asked = Vec::new();
        for at in (0..3_600).step_by(2) {
            let now = start + Duration::from_secs(at);
            if cache.known(STUN, now).is_none() {
                asked.push(at);
                cache.asked(STUN, vec![ip(1)], 0, 0, now);
            }
            cache.answered(is(ip(1)), 3478);
            assert_eq!(cache.silent(is(ip(1)), 3478, now), cache.known(STUN, now).is_none());
        }
        assert_eq!(asked.len(), 60);
    }

    #[test]
    fn on_another_network_everything_is_asked_for_anew_and_late_answers_of_the_former_one_are_not_kept() {
        let (mut cache, now) = (HostCache::default(), Instant::now());
        cache.asked(STUN, vec![ip(1)], 0, 0, now);
        cache.on_network(0);
        assert!(cache.known(STUN, now).is_some());
        cache.on_network(1);
        assert_eq!(cache.known(STUN, now), None);
        assert_eq!(cache.asked(STUN, vec![ip(1)], 0, 0, now), [ip(1)]);
        assert_eq!(cache.known(STUN, now), None);
    }

    #[test]
    fn a_name_that_never_resolved_is_found_half_a_minute_after_the_name_server_came_up() {
        let (mut cache, start) = (HostCache::default(), Instant::now());
        let asked = look_up(&mut cache, 1, [0, 3_600], start, |_| Vec::new());
        assert!((110..=250).contains(&asked.len()), "{asked:?}");
        assert!(asked.windows(2).all(|two| two[1] - two[0] <= 31), "{asked:?}");
        assert!(cache.known(STUN, start + 3_600 * SECOND).unwrap_or_default().is_empty());
    }

    #[test]
    fn a_name_that_does_not_resolve_any_more_is_asked_for_ever_more_rarely_and_its_former_addresses_stay_in_use() {
        let (mut cache, start) = (HostCache::default(), Instant::now());
        let asked = look_up(&mut cache, 5, [0, 3_600], start, |at| if at < 100 { vec![ip(1)] } else { Vec::new() });
        assert!((14..=30).contains(&asked.len()), "{asked:?}");
        let mut cache = HostCache::default();
        look_up(&mut cache, 5, [0, 1_800], start, |at| if at < 100 { vec![ip(1)] } else { Vec::new() });
        cache.asked(STUN, Vec::new(), 0, u32::MAX, start + 1_800 * SECOND);
        assert_eq!(cache.known(STUN, start + 1_801 * SECOND), Some(vec![ip(1)]));
        cache.asked(STUN, vec![ip(2)], 0, 0, start + 2_200 * SECOND);
        cache.asked(STUN, Vec::new(), 0, u32::MAX, start + 2_600 * SECOND);
        assert_eq!(cache.known(STUN, start + 2_616 * SECOND), None, "the pauses begin anew");
    }

    #[test]
    fn of_more_hosts_than_there_is_room_for_the_one_used_longest_ago_goes() {
        let (mut cache, start) = (HostCache::default(), Instant::now());
        for n in 0..200_u32 {
            let now = start + n * SECOND;
            assert!(n == 0 || cache.known("host-0", now).is_some());
            let many = (0..=255).map(ip).collect();
            assert_eq!(cache.asked(&format!("host-{n}"), many, 0, 0, now).len(), MAX_ADDRESSES);
            assert!(cache.hosts.len() <= MAX_HOSTS);
        }
        assert_eq!(cache.evicted(), 200 - MAX_HOSTS as u64);
    }
}
