//! Which path carries data: promotion, heartbeats, demotion.

use std::{net::SocketAddr, time::Instant};

use super::{Current, PathAgent, RELOOK_DIRECT, RELOOK_LAN, RELOOK_NONE, RELOOK_RELAYED};
use crate::path::{
    PathEvent, PathReason, Tier,
    budget::Priority,
    heartbeat::{Beat, Heartbeat},
    pair::Pair,
    punch::Phase,
};

impl PathAgent {
    /// A pair answered one of our pings; `padded`: with a full-size round trip.
    pub(super) fn path_answered(&mut self, remote: SocketAddr, padded: bool, now: Instant) {
        if let Current::Direct { remote: current, heartbeat } = &mut self.current
            && *current == remote
        {
            if heartbeat.answered(padded, self.active, now) {
                self.event(PathEvent::Trusted);
            }
            return;
        }
        if padded && self.wanted {
            self.consider(remote, now);
        }
    }

    pub(super) fn poll_heartbeat(&mut self, now: Instant) {
        while let Current::Direct { remote, heartbeat } = &mut self.current {
            let remote = *remote;
            let rtt = self.pairs.get(remote).map(Pair::rtt).unwrap_or_default();
            let Some(beat) = heartbeat.poll(rtt, self.active, now) else { return };
            match beat {
                Beat::Ping { padded } => self.ping(remote, padded, Priority::Decide, now),
                Beat::Doubt => self.look_elsewhere(remote, now),
                Beat::Distrust => {
                    self.counters.distrusts += 1;
                    self.event(PathEvent::Distrusted);
                    self.fail_over(now);
                }
                Beat::Demote => {
                    self.counters.demotions += 1;
                    self.leave_direct(PathReason::HeartbeatLost, now);
                    self.punch.rearm();
                    self.request_punch(now);
                }
            }
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
            self.burst(now);
        }
        self.schedule_relook(now);
    }

    /// The next look at the pairs, by how good the present path is.
    pub(super) fn schedule_relook(&mut self, now: Instant) {
        let after = match &self.current {
            Current::None => RELOOK_NONE,
            Current::Relayed => RELOOK_RELAYED,
            Current::Direct { remote, .. } => match self.pairs.get(*remote).map(|pair| pair.candidate.tier()) {
                Some(Tier::Lan) => RELOOK_LAN,
                Some(Tier::Direct | Tier::Relayed) | None => RELOOK_DIRECT,
            },
        };
        self.relook_at = self.wanted.then(|| now + after);
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
        self.current = next;
        self.reason = reason;
        self.changed_at = now;
        self.schedule_relook(now);
        self.event(PathEvent::Selected { selected: self.selected(), reason });
    }

    /// A pair other than the selected one carried a full round trip.
    fn consider(&mut self, remote: SocketAddr, now: Instant) {
        let Some(score) = self.pairs.get(remote).map(Pair::score) else { return };
        let reason = match &self.current {
            Current::None | Current::Relayed => PathReason::DirectProved,
            Current::Direct { remote: current, heartbeat } => {
                let current = self.pairs.get(*current).map(Pair::score);
                if current.is_none_or(|current| score.replaces(current)) {
                    PathReason::BetterPath
                } else if heartbeat.is_distrusted() {
                    PathReason::Failover
                } else {
                    return;
                }
            }
        };
        self.promote(remote, reason, now);
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
    fn fail_over(&mut self, now: Instant) {
        let Current::Direct { remote, heartbeat } = &self.current else { return };
        let Some(since) = heartbeat.doubted_since() else { return };
        let others = self.pairs.iter().filter(|pair| pair.remote() != *remote && pair.is_proved_since(since));
        if let Some(best) = others.min_by_key(|pair| pair.score()).map(Pair::remote) {
            self.promote(best, PathReason::Failover, now);
        }
    }

    fn promote(&mut self, remote: SocketAddr, reason: PathReason, now: Instant) {
        if let Current::Direct { remote: left, heartbeat } = &self.current
            && heartbeat.doubted_since().is_some()
            && let Some(pair) = self.pairs.get_mut(*left)
        {
            pair.fail();
        }
        self.counters.promotions += 1;
        self.select(Current::Direct { remote, heartbeat: Heartbeat::new(self.active, now) }, reason, now);
        if matches!(self.punch.phase, Phase::Backoff { .. } | Phase::OfferDue { .. }) {
            self.punch.phase = Phase::Idle;
        }
    }
}
