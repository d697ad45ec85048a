//! Probes out and probes in.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::PathAgent;
use crate::path::{
    LocalEnd, PADDED_PROBE_LEN, PathEvent, PathTransmit, ProbeBody, ProbeError, budget::Priority,
    candidate::is_probe_target, normalize, pair::Pair,
};
use crate::signal::SessionId;

/// From the last packet to an address where the peer was never heard to a new look at it: longer than routers remember a
/// packet that nobody asked for, and than the first pause between two rounds.
const QUIET: Duration = Duration::from_secs(120);

impl PathAgent {
    /// A UDP payload that [`classify`](crate::path::classify) took for a probe.
    ///
    /// `end` is where it arrived: the socket, and the address where the kernel would not answer `from` by it of its own accord. The
    /// answer leaves there.
    pub fn handle_probe(
        &mut self,
        end: impl Into<LocalEnd>,
        from: SocketAddr,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), ProbeError> {
        let result = self.receive_probe(end.into(), normalize(from), packet, now);
        match result {
            Ok(()) => self.counters.probes_received += 1,
            Err(_) => self.counters.probes_refused += 1,
        }
        result
    }

    /// One small probe to every pair, best kinds first. The selected one gets it, too: that is how the newest session
    /// comes into use on a healthy path.
    pub(super) fn burst(&mut self, ttl: Option<u8>, now: Instant) {
        self.burst_to(|_| true, ttl, now);
    }

    /// A new look between two rounds. While offers can be made, an address where the peer was never heard is left in peace
    /// for long: our packets may be what keeps a wrong entry alive at its router, and the next round finds none then.
    pub(super) fn burst_again(&mut self, now: Instant) {
        let patient = self.relay_up;
        self.burst_to(|pair| !patient || pair.was_heard() || pair.was_quiet_for(QUIET, now), None, now);
    }

    fn burst_to(&mut self, which: impl Fn(&Pair) -> bool, ttl: Option<u8>, now: Instant) {
        let mut targets: Vec<_> = self.pairs.iter().filter(|pair| which(pair)).map(|pair| pair.candidate).collect();
        targets.sort_unstable();
        for target in targets {
            self.ping_within(target.addr, ttl, false, Priority::Search, now);
        }
    }

    /// Probes of both sizes to the pairs on which the peer was heard, as far as they are not answered yet: what carries one size
    /// need not carry the other.
    pub(super) fn poll_chases(&mut self, now: Instant) {
        let due = self.pairs.iter_mut().filter_map(|pair| {
            let is_due = pair.take_chase_step(now);
            is_due.then(|| (pair.remote(), pair.lacks(true), pair.lacks(false)))
        });
        for (remote, lacks_full, lacks_small) in due.collect::<Vec<_>>() {
            if lacks_full {
                self.ping(remote, true, Priority::Decide, now);
                // While data is well where it is, it moves only to where its packets fit as they are.
                if self.is_direct() {
                    self.ping_large(remote, now);
                }
            }
            if lacks_small {
                self.ping(remote, false, Priority::Decide, now);
            }
        }
    }

    /// Sends a ping as large as the tunnel's packets, if these are larger than what every path carries.
    pub(super) fn ping_large(&mut self, remote: SocketAddr, now: Instant) {
        let Some(size) = self.sizing.above_least() else { return };
        let (Some(session), Some(pair)) = (self.sessions.established(), self.pairs.get_mut(remote)) else { return };
        if !self.pings.take(Priority::Decide, now) {
            self.counters.probes_suppressed += 1;
            return;
        }
        let transaction = self.random.bytes();
        pair.sent_at = Some(now);
        pair.record_large_ping(transaction, size, now);
        let packet = session.seal_probe_to(ProbeBody::Ping { transaction }, size);
        let LocalEnd { socket, address: local } = pair.via;
        self.counters.pings_sent += 1;
        self.transmit(PathTransmit::Probe { socket, local, to: remote, ttl: None, packet });
    }

    /// Sends a ping, if the limit and the sessions allow. Searches use the newest session, decisions the one the peer
    /// surely has. False when the limit kept it back.
    pub(super) fn ping(&mut self, remote: SocketAddr, padded: bool, priority: Priority, now: Instant) -> bool {
        self.ping_within(remote, None, padded, priority, now)
    }

    fn ping_within(
        &mut self,
        remote: SocketAddr,
        ttl: Option<u8>,
        padded: bool,
        priority: Priority,
        now: Instant,
    ) -> bool {
        let session = match priority {
            Priority::Search => self.sessions.newest(),
            Priority::Decide => self.sessions.established(),
        };
        // Where no session can ask, nothing is answered either: that is no matter of the limit.
        let (Some(session), Some(pair)) = (session, self.pairs.get_mut(remote)) else { return true };
        if !self.pings.take(priority, now) {
            self.counters.probes_suppressed += 1;
            return false;
        }
        let transaction = self.random.bytes();
        pair.sent_at = Some(now);
        // Nobody expects an answer to one that shall die on the way.
        if ttl.is_none() {
            pair.record_ping(transaction, padded, now);
        }
        let packet = session.seal_probe(ProbeBody::Ping { transaction }, padded);
        let LocalEnd { socket, address: local } = pair.via;
        self.counters.pings_sent += 1;
        self.transmit(PathTransmit::Probe { socket, local, to: remote, ttl, packet });
        true
    }

    fn receive_probe(
        &mut self,
        end: LocalEnd,
        from: SocketAddr,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), ProbeError> {
        let (session_id, body) = self.sessions.open_probe(packet)?;
        if !is_probe_target(from, self.allow_loopback) {
            return Err(ProbeError::UnusableSource);
        }
        let padded = packet.len() >= PADDED_PROBE_LEN;
        match body {
            ProbeBody::Ping { transaction } => {
                self.hear(end, from, now);
                self.peer_asked(from, now);
                self.pong(end, from, session_id, transaction, padded, now);
            }
            ProbeBody::Pong { transaction, observed: _ } => {
                self.receive_pong(end, from, session_id, transaction, padded, now)
            }
        }
        Ok(())
    }

    /// An authentic probe came from that address: it is the peer's, and the way back is worth a full-size try.
    fn hear(&mut self, end: LocalEnd, from: SocketAddr, now: Instant) {
        let selected = self.direct_remote();
        let known = self.pairs.get(from).is_some();
        let (pair, change) = self.pairs.learn(from, selected);
        let Some(pair) = pair else {
            self.note_pairs(change);
            return;
        };
        let first = pair.hear(now);
        pair.hear_on(end);
        if self.wanted && selected != Some(from) {
            pair.start_chase(now);
        }
        self.note_pairs(change);
        self.counters.addresses_learned += u64::from(!known);
        if first {
            self.event(PathEvent::AddressAuthenticated(from));
            self.suspect_move(from, now);
        }
        self.poll_chases(now);
    }

    fn pong(
        &mut self,
        end: LocalEnd,
        to: SocketAddr,
        session_id: SessionId,
        transaction: [u8; 8],
        padded: bool,
        now: Instant,
    ) {
        if !self.pongs.take(Priority::Decide, now) {
            self.counters.probes_suppressed += 1;
            return;
        }
        let Some(session) = self.sessions.get(session_id) else { return };
        let packet = session.seal_probe(ProbeBody::Pong { transaction, observed: to }, padded);
        self.counters.pongs_sent += 1;
        self.transmit(PathTransmit::Probe { socket: end.socket, local: end.address, to, ttl: None, packet });
    }

    fn receive_pong(
        &mut self,
        end: LocalEnd,
        from: SocketAddr,
        session_id: SessionId,
        transaction: [u8; 8],
        padded: bool,
        now: Instant,
    ) {
        // The answer counts for the address that was asked; one that comes from elsewhere proves no path to either.
        let round_trip =
            self.pairs.get_mut(from).and_then(|pair| pair.record_pong(end.socket, transaction, padded, now));
        self.hear(end, from, now);
        let Some(round_trip) = round_trip else { return };
        if round_trip.padded && self.sessions.mark_proved(session_id) {
            self.event(PathEvent::SessionsChanged);
        }
        self.path_answered(from, round_trip.padded, now);
    }
}
