//! Which path carries data: promotion, heartbeats, demotion.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{Current, PathAgent};
use crate::path::{
    PathEvent, PathReason, Tier,
    budget::Priority,
    heartbeat::{Beat, Heartbeat, Missing, Suspicion},
    loss::Carried,
    pair::{CHASE_INTERVAL, Pair},
    punch::Phase,
};

/// New looks at the pairs: on a relay, on a direct path that is slow or was in doubt lately, on a good one, and without any
/// path.
const RELOOK_RELAYED: Duration = Duration::from_secs(30);
const RELOOK_POOR: Duration = Duration::from_secs(60);
const RELOOK_GOOD: Duration = Duration::from_secs(600);
const RELOOK_NONE: Duration = Duration::from_secs(5);
/// While no stream is open the pause is this part of the time since the path changed, if that is longer, and as on a good path at most:
/// where the peer is heard and large packets die, each look costs eight of them.
const IDLE_SHARE: u32 = 4;

/// After a change of path, packets of the former one are still being declared lost.
const LOSS_GRACE: Duration = Duration::from_secs(1);

impl PathAgent {
    /// A pair answered one of our pings; `padded`: with a full-size round trip. Another than the selected one is considered once
    /// it carried both sizes.
    pub(super) fn path_answered(&mut self, remote: SocketAddr, padded: bool, now: Instant) {
        if let Current::Direct { remote: current, heartbeat } = &mut self.current
            && *current == remote
        {
            if heartbeat.answered(padded, self.active, now) {
                self.event(PathEvent::Trusted);
            }
            return;
        }
        if self.wanted && self.pairs.get(remote).is_some_and(Pair::has_passed) {
            self.consider(remote, now);
        }
    }

    pub(super) fn poll_heartbeat(&mut self, now: Instant) {
        while let Current::Direct { remote, heartbeat } = &mut self.current {
            let remote = *remote;
            let rtt = self.pairs.get(remote).map(Pair::rtt).unwrap_or_default();
            let Some(beat) = heartbeat.poll(rtt, self.active, now) else { return };
            match beat {
                Beat::Ping { padded } => {
                    let left = self.ping(remote, padded, Priority::Decide, now);
                    if let Current::Direct { heartbeat, .. } = &mut self.current
                        && !left
                    {
                        heartbeat.not_sent(padded, now);
                    }
                }
                Beat::Doubt => self.look_elsewhere_in_doubt(remote, now),
                Beat::Moved => {
                    self.look_elsewhere(remote, now);
                    self.fail_over(PathReason::PeerMoved, now);
                }
                Beat::Distrust => {
                    self.counters.distrusts += 1;
                    self.doubted_at = Some(now);
                    self.event(PathEvent::Distrusted);
                    self.fail_over(PathReason::Failover, now);
                }
                Beat::Demote { missing } => {
                    self.counters.demotions += 1;
                    let reason = self.why_silent(remote, missing, now);
                    self.leave_direct(reason, now);
                    if reason == PathReason::SmallPacketsLost
                        && let Some(pair) = self.pairs.get_mut(remote)
                    {
                        pair.lose_small(now);
                    }
                    self.punch.rearm();
                    self.request_punch(now);
                }
            }
        }
    }

    /// Why a path is left whose answers are missing.
    fn why_silent(&self, remote: SocketAddr, missing: Missing, now: Instant) -> PathReason {
        let Some(pair) = self.pairs.get(remote) else { return PathReason::HeartbeatLost };
        if missing.full.is_some_and(|at| pair.carries_small_only_since(at)) {
            PathReason::PacketsTooSmall
        } else if missing.small.is_some_and(|at| pair.loses_only_small_since(at, now)) {
            PathReason::SmallPacketsLost
        } else {
            PathReason::HeartbeatLost
        }
    }

    pub(super) fn poll_relook(&mut self, now: Instant) {
        if self.relook_at.is_none_or(|at| now < at) {
            return;
        }
        for pair in self.pairs.iter_mut() {
            pair.end_chase();
        }
        if !matches!(self.punch.phase, Phase::Round(_)) {
            self.burst_again(now);
        }
        self.schedule_relook(now);
    }

    /// The next look at the pairs, by how good the present path is.
    pub(super) fn schedule_relook(&mut self, now: Instant) {
        self.looked_at = now;
        self.relook_at = self.wanted.then(|| now + self.relook_pause(now));
    }

    /// Streams are open: a look that was put off because nobody needed it is made up for.
    pub(super) fn look_sooner(&mut self, now: Instant) {
        let due = self.looked_at + self.relook_pause(now);
        self.relook_at = self.relook_at.map(|at| at.min(due));
    }

    fn relook_pause(&self, now: Instant) -> Duration {
        let usual = match &self.current {
            Current::None => return RELOOK_NONE,
            Current::Relayed => RELOOK_RELAYED,
            Current::Direct { remote, .. } if self.is_good(*remote, now) => RELOOK_GOOD,
            Current::Direct { .. } => RELOOK_POOR,
        };
        let settled = now.saturating_duration_since(self.changed_at) / IDLE_SHARE;
        if self.active { usual } else { usual.max(settled.min(RELOOK_GOOD)) }
    }

    /// Whether a direct path is worth keeping without a look around: between own addresses, or no slower than the way over
    /// the relay, and not in doubt lately.
    pub(super) fn is_good(&self, remote: SocketAddr, now: Instant) -> bool {
        let Some(pair) = self.pairs.get(remote) else { return false };
        let relayed = self.relay_rtt.unwrap_or_default() + self.peer_nat.relay_rtt().unwrap_or_default();
        let calm = self.doubted_at.is_none_or(|at| at + RELOOK_GOOD <= now);
        match pair.candidate.tier() {
            Tier::Lan => calm,
            Tier::Direct | Tier::Relayed => calm && (relayed.is_zero() || pair.rtt() <= relayed),
        }
    }

    /// What the tunnel sent and declared lost since it was asked last, and the round trip it measures, while the selected path is
    /// direct. A path that loses more than 30 % over 2 s is left for the relay, while that stands; it rests before it is used
    /// again. One that loses large packets is asked at once whether it carries them at all.
    pub fn handle_traffic(&mut self, traffic: Carried, tunnel_rtt: Duration, now: Instant) {
        let Current::Direct { remote, heartbeat } = &mut self.current else { return };
        let remote = *remote;
        // While data is duplicated, loss says nothing of the one path; just after a change, it is that of the former one; and
        // while the tunnel's packets may be too large, it is not the line's.
        if heartbeat.is_distrusted() || now < self.changed_at + LOSS_GRACE || self.sizing.is_asking() {
            self.loss.clear();
            return;
        }
        let losses = self.loss.add(traffic, now);
        if losses.is_of_large_ones {
            let rtt = self.pairs.get(remote).map(Pair::rtt).unwrap_or_default();
            heartbeat.suspect_size(rtt, tunnel_rtt, now);
            self.doubt_size(remote, now);
        }
        if !losses.is_bad || !self.relay_up || self.sizing.is_asking() {
            return;
        }
        self.counters.lossy += 1;
        self.doubted_at = Some(now);
        self.leave_direct(PathReason::Lossy, now);
        if let Some(pair) = self.pairs.get_mut(remote) {
            pair.bar(now);
        }
    }

    /// The addresses of ours by which paths leave because the kernel would choose others.
    pub fn local_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.pairs.iter().filter_map(|pair| pair.via.address)
    }

    /// Addresses of this machine may be gone. What left by one of them is dead now: no answer is waited for.
    pub fn handle_local_addresses(&mut self, is_ours: impl Fn(IpAddr) -> bool, now: Instant) {
        let is_lost = |pair: &Pair| pair.via.address.is_some_and(|address| !is_ours(address));
        let in_use = self.direct_remote().filter(|remote| self.pairs.get(*remote).is_some_and(is_lost));
        self.pairs.iter_mut().filter(|pair| is_lost(pair)).for_each(Pair::lose_address);
        if in_use.is_none() {
            return;
        }
        self.counters.demotions += 1;
        self.doubted_at = Some(now);
        self.leave_direct(PathReason::LocalAddressGone, now);
        for pair in self.pairs.iter_mut().filter(|pair| pair.is_heard()) {
            pair.end_chase();
            pair.start_chase(now);
        }
        self.poll_chases(now);
        self.punch.rearm();
        self.request_punch(now);
    }

    /// The network changed. An address that the kernel now chooses anyway is remembered no more: when it changes again, the path goes
    /// on by itself, as any other. `way_to` says what the kernel chooses towards an address.
    pub fn handle_ways(&mut self, way_to: impl Fn(SocketAddr) -> Option<IpAddr>) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.via.address.is_some()) {
            if way_to(pair.remote()) == pair.via.address {
                pair.name_no_address();
            }
        }
    }

    /// Of the two sides, that with the smaller key.
    fn leads(&self) -> bool {
        self.keys.local_key < self.keys.remote_key
    }

    /// The peer asked whether we are here.
    pub(super) fn peer_asked(&mut self, from: SocketAddr, now: Instant) {
        if let Current::Direct { remote, heartbeat } = &mut self.current
            && *remote == from
        {
            heartbeat.peer_asked(self.active, now);
        }
    }

    /// The peer was heard from an address for the first time: if the selected path is silent, it has moved there.
    pub(super) fn suspect_move(&mut self, heard: SocketAddr, now: Instant) {
        let Current::Direct { remote, heartbeat } = &mut self.current else { return };
        if *remote != heard {
            let rtt = self.pairs.get(*remote).map(Pair::rtt).unwrap_or_default();
            heartbeat.suspect(Suspicion::HeardElsewhere, rtt, now);
        }
    }

    /// From a direct path to whatever else there is.
    pub(super) fn leave_direct(&mut self, reason: PathReason, now: Instant) {
        let Some(remote) = self.direct_remote() else { return };
        let next = if self.relay_up { Current::Relayed } else { Current::None };
        self.select(next, reason, now);
        if let Some(pair) = self.pairs.get_mut(remote) {
            pair.fail();
        }
    }

    pub(super) fn select(&mut self, next: Current, reason: PathReason, now: Instant) {
        self.loss.clear();
        self.looked_elsewhere_at = None;
        self.current = next;
        self.reason = reason;
        self.changed_at = now;
        self.schedule_relook(now);
        self.event(PathEvent::Selected { selected: self.selected(), reason });
    }

    /// A pair other than the selected one carried round trips of both sizes.
    fn consider(&mut self, remote: SocketAddr, now: Instant) {
        let Some(pair) = self.pairs.get(remote) else { return };
        if pair.is_barred(now) && self.relay_up {
            return;
        }
        let score = pair.score();
        let reason = match &self.current {
            Current::None | Current::Relayed => PathReason::DirectProved,
            Current::Direct { remote: current, heartbeat } => {
                let current = self.pairs.get(*current).map(Pair::score);
                if current.is_none_or(|current| score.replaces(current)) && pair.carries(self.sizing.size()) {
                    PathReason::BetterPath
                } else if heartbeat.seems_moved() {
                    PathReason::PeerMoved
                } else if heartbeat.is_distrusted() {
                    PathReason::Failover
                } else {
                    return;
                }
            }
        };
        self.promote(remote, reason, now);
    }

    /// An answer is missing. On a lossy line that is said every few seconds, and what it costs to ask the others is then better kept
    /// for this one, while there is a relay to fall back on.
    fn look_elsewhere_in_doubt(&mut self, current: SocketAddr, now: Instant) {
        let is_recent = self.looked_elsewhere_at.is_some_and(|at| now < at + CHASE_INTERVAL);
        if !is_recent || !self.relay_up {
            self.looked_elsewhere_at = Some(now);
            self.look_elsewhere(current, now);
        }
    }

    /// The selected path is in doubt: the others are asked for a proof.
    fn look_elsewhere(&mut self, current: SocketAddr, now: Instant) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.remote() != current && pair.is_heard()) {
            pair.end_chase();
            pair.start_chase(now);
        }
        self.poll_chases(now);
    }

    /// The selected path is distrusted: one that was proved during its silence takes over.
    fn fail_over(&mut self, reason: PathReason, now: Instant) {
        let Current::Direct { remote, heartbeat } = &self.current else { return };
        let Some(since) = heartbeat.doubted_since() else { return };
        let proved = |pair: &&Pair| pair.is_proved_since(since) && !pair.is_barred(now);
        let others = self.pairs.iter().filter(|pair| pair.remote() != *remote).filter(proved);
        // What comes first is that the tunnel's packets fit.
        let rank = |pair: &&Pair| (!pair.carries(self.sizing.size()), pair.score());
        if let Some(best) = others.min_by_key(rank).map(Pair::remote) {
            self.promote(best, reason, now);
        }
    }

    fn promote(&mut self, remote: SocketAddr, reason: PathReason, now: Instant) {
        if let Current::Direct { remote: left, heartbeat } = &self.current
            && heartbeat.doubted_since().is_some()
            && let Some(pair) = self.pairs.get_mut(*left)
        {
            pair.fail();
            // It may be the better one when it is back. Whoever follows the peer notices that no later than the peer.
            self.doubted_at = Some(now);
        }
        self.counters.promotions += 1;
        self.select(Current::Direct { remote, heartbeat: Heartbeat::new(self.leads(), self.active, now) }, reason, now);
        if matches!(self.punch.phase, Phase::Backoff { .. } | Phase::OfferDue { .. }) {
            self.punch.phase = Phase::Idle;
        }
        self.punch.peer_absent = false;
        self.guess_at = None;
        self.end_run(now);
        self.fit_tunnel(remote, now);
    }
}
