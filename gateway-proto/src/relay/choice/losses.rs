//! Relays that lose much of what they are given for one peer, as the tunnel counts it, and those that say so themselves.
//!
//! A message and its answer are two packets, one after the other. One that is lost costs a timer of QUIC, 0.1 s where nothing follows
//! it, twice as much when that is lost too. Twenty messages a second leave 50 ms for each: one packet lost in ten is
//! borne at a usual round trip, one in five is not, and shuts the congestion window besides. So a lost packet outweighs
//! eight that arrived ([`LOST`]): what loses more than one in nine fills the [`score`](Meter), what loses one in twenty does not do so by chance
//! in hours. The worse it is, the fewer packets it takes, for a tunnel of which much is lost sends little.
//!
//! UDP to the relay is blamed first, ours by us and the peer's by the peer, and has some seconds to be left. Then another relay is
//! joined, and after a second this one rests: it is used only where there is no other. Its pause doubles when it loses again
//! soon after. Where all relays rest, nobody knows a better one: the one in use stays, unless another lost half as much. So an uplink of our
//! own that loses, whichever way it is used, costs one try of each relay, again after a minute, two, four, and at last once in a quarter of an hour.
//! A relay whose link lost what was under way three times in a minute rests as well: UDP that comes and goes is left for good reason each time.
//!
//! The tunnel does not ask how its packets travel: what a relay drops of those that came over TLS, because the partner's link does not take
//! more, is lost like any other. What never left, because our own link has no room, is not the relay's doing: a slow proxy is as slow on
//! the way to the next relay.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Seen;
use crate::{id::RelayId, path::Carried, relay::lately::elapsed};

/// A packet that was lost counts as much as so many that arrived.
const LOST: u64 = 8;
/// The score that is no chance.
const ENOUGH: u64 = 60;
/// One look at the tunnel, four of which are made in a second, adds no more: a bad moment is no verdict.
const AT_ONCE: u64 = 15;
/// The score must have been above nothing for so long; of a relay that was left before, or loses more than the one that was left, it
/// is known sooner.
const JUDGED_AFTER: Duration = Duration::from_secs(3);
const JUDGED_AGAIN_AFTER: Duration = Duration::from_millis(1_500);
/// So long UDP has the blame, before the relay has it.
const UDP_CHANCE: Duration = Duration::from_secs(6);
/// What is declared lost so soon after a change went another way.
const SETTLES: Duration = Duration::from_secs(1);
/// The next relay is joined for so long before this one is left: by then it has said if it does not see the peer.
const JOINED_FOR: Duration = Duration::from_secs(1);
/// First and longest pause of a relay.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));
/// So many falls of a link, each no longer after the first one, are too many; it is taken to lose half of the time.
const FALLS: usize = 3;
const FALLS_WITHIN: Duration = Duration::from_secs(60);
const FALLEN_PERCENT: u8 = 50;
/// What our own link had no room for is declared lost within this time: behind what waits in a slow one.
const KEPT_BACK_FOR: Duration = Duration::from_secs(60);
/// More than a gateway is attached to.
const MAX_RELAYS: usize = 16;
/// Packets of which the share is told; older ones count half.
const SHARE_OF: u64 = 400;

/// What the tunnel's losses say of the relay in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossVerdict {
    /// They are borne, or it is too early to say.
    Bearable,
    /// UDP to the relay is the first to have the blame.
    BlamesUdp,
    /// The relay has it: another one is used, where there is one.
    BlamesRelay {
        /// The relay.
        relay: RelayId,
        /// Of a hundred packets that went over it, so many were lost.
        percent: u8,
    },
}

/// Of one peer. See the module's description.
#[derive(Debug, Default)]
pub(super) struct Losses {
    meter: Meter,
    rests: Vec<Rest>,
    links: Vec<Link>,
}

/// When a link lost what was under way.
#[derive(Debug)]
struct Link {
    relay: RelayId,
    falls: u64,
    /// The newest last.
    at: VecDeque<Instant>,
}

/// What is lost of what goes over one relay alone.
#[derive(Debug, Default)]
struct Meter {
    /// Which one, and how often it lost what was under way; none while it is not known which one loses.
    relay: Option<(RelayId, u64)>,
    counts_from: Option<Instant>,
    score: u64,
    /// Since when the score is above nothing.
    since: Option<Instant>,
    /// When UDP had the blame.
    blamed_udp_at: Option<Instant>,
    sent: u64,
    lost: u64,
    /// Packets that our own link had no room for and that were not declared lost yet, and when there was one last.
    kept_back: Option<(u64, Instant)>,
}

/// A relay that rests.
#[derive(Debug, Clone, Copy)]
struct Rest {
    relay: RelayId,
    /// Until then the next one is joined.
    from: Instant,
    until: Instant,
    pause: Duration,
    percent: u8,
}

impl Losses {
    /// What is sent now goes over this relay alone, or over several, or none.
    pub(super) fn uses(&mut self, alone: Option<&Seen>, now: Instant) {
        let relay = alone.map(|link| (link.relay, link.falls));
        if self.meter.relay != relay {
            self.meter = Meter { relay, counts_from: Some(now + SETTLES), ..Meter::default() };
        }
    }

    /// What the tunnel sent and declared lost since the last look, and how much of it our own link had no room for.
    pub(super) fn carried(&mut self, carried: Carried, kept_back: u64, now: Instant) -> LossVerdict {
        self.meter.keep_back(kept_back, now);
        let Some((relay, _)) = self.meter.relay.filter(|_| self.meter.counts_from.is_some_and(|from| now >= from))
        else {
            return LossVerdict::Bearable;
        };
        let carried = self.meter.without_kept_back(carried, now);
        let Some(since) = self.meter.count(carried, now) else { return LossVerdict::Bearable };
        let known = self.rest(relay).is_some_and(|rest| now < rest.until + rest.pause);
        let is_short = known || self.is_worse_than_before(relay, now);
        let patience = if is_short { JUDGED_AGAIN_AFTER } else { JUDGED_AFTER };
        if self.meter.score < ENOUGH || elapsed(since, now) < patience {
            return LossVerdict::Bearable;
        }
        if !is_short {
            let Some(blamed_at) = self.meter.blamed_udp_at else {
                self.meter.blamed_udp_at = Some(now);
                return LossVerdict::BlamesUdp;
            };
            if elapsed(blamed_at, now) < UDP_CHANCE {
                return LossVerdict::Bearable;
            }
        }
        let (percent, resting) = (self.meter.percent(), self.is_resting(relay, now));
        self.meter.start_over();
        self.lay_to_rest(relay, percent, now);
        // Of one that is used because there is no better one, nothing new is said.
        if resting { LossVerdict::Bearable } else { LossVerdict::BlamesRelay { relay, percent } }
    }

    /// The links as they stand: one that falls again and again rests.
    pub(super) fn look_at(&mut self, links: &[Seen], now: Instant) {
        self.links.retain(|known| links.iter().any(|link| link.relay == known.relay));
        for link in links {
            let Some(known) = self.links.iter_mut().find(|known| known.relay == link.relay) else {
                self.links.push(Link { relay: link.relay, falls: link.falls, at: VecDeque::new() });
                continue;
            };
            // An attachment that is new counts from nothing.
            if std::mem::replace(&mut known.falls, link.falls) >= link.falls {
                continue;
            }
            known.at.retain(|at| elapsed(*at, now) < FALLS_WITHIN);
            known.at.push_back(now);
            if known.at.len() >= FALLS {
                known.at.pop_front();
                self.lay_to_rest(link.relay, FALLEN_PERCENT, now);
            }
        }
    }

    /// This relay, which is in use, says that it drops much for a limit.
    pub(super) fn is_limited(&mut self, relay: RelayId, percent: u8, now: Instant) {
        if self.rest(relay).is_none_or(|rest| now >= rest.until) {
            self.lay_to_rest(relay, percent, now);
        }
    }

    /// How much of a hundred packets is lost over a relay that is to be used only where there is no other.
    pub(super) fn avoided(&self, link: &Seen, now: Instant) -> Option<u8> {
        let resting = self.rest(link.relay).filter(|rest| rest.from <= now && now < rest.until);
        let joining = self.is_joining(link.relay, now);
        resting.map(|rest| rest.percent).or(link.drops.filter(|_| !joining))
    }

    /// Whether the next one is joined before this one is left.
    pub(super) fn is_joining(&self, relay: RelayId, now: Instant) -> bool {
        self.rest(relay).is_some_and(|rest| now < rest.from)
    }

    /// Which one to use of those that are all to be avoided: the one in use, unless another lost less than half as much.
    pub(super) fn least(avoided: &[(RelayId, u8)], used: Option<RelayId>) -> Option<RelayId> {
        let (best, least) = avoided.iter().min_by_key(|(_, percent)| *percent)?;
        let stays = |(relay, percent): &&(RelayId, u8)| Some(*relay) == used && *percent <= least.saturating_mul(2);
        Some(avoided.iter().find(stays).map_or(*best, |(relay, _)| *relay))
    }

    /// When one is left, or may be used again.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.rests.iter().flat_map(|rest| [rest.from, rest.until]).filter(|at| *at > now).min()
    }

    fn lay_to_rest(&mut self, relay: RelayId, percent: u8, now: Instant) {
        let former = self.rest(relay);
        let pause = match former {
            Some(rest) if now < rest.until => rest.pause,
            Some(rest) if now < rest.until + rest.pause => (rest.pause * 2).min(PAUSES.1),
            Some(_) | None => PAUSES.0,
        };
        let from = former.filter(|rest| now < rest.until).map_or(now + JOINED_FOR, |rest| rest.from);
        self.rests.retain(|rest| rest.relay != relay);
        if self.rests.len() >= MAX_RELAYS
            && let Some(oldest) = (0..self.rests.len()).min_by_key(|index| self.rests[*index].until)
        {
            self.rests.swap_remove(oldest);
        }
        self.rests.push(Rest { relay, from, until: now + pause, pause, percent });
    }

    /// It loses more than one that was left for losing.
    fn is_worse_than_before(&self, relay: RelayId, now: Instant) -> bool {
        let percent = self.meter.percent();
        self.rests.iter().any(|rest| rest.relay != relay && now < rest.until && rest.percent < percent)
    }

    fn is_resting(&self, relay: RelayId, now: Instant) -> bool {
        self.rest(relay).is_some_and(|rest| now < rest.until)
    }

    fn rest(&self, relay: RelayId) -> Option<Rest> {
        self.rests.iter().find(|rest| rest.relay == relay).copied()
    }
}

impl Meter {
    fn start_over(&mut self) {
        let Self { relay, counts_from, kept_back, .. } = *self;
        *self = Self { relay, counts_from, kept_back, ..Self::default() };
    }

    fn keep_back(&mut self, packets: u64, now: Instant) {
        if packets > 0 {
            let before = self.kept_back.map_or(0, |(before, _)| before);
            self.kept_back = Some((before.saturating_add(packets), now));
        }
    }

    /// What the relay was given, and lost.
    fn without_kept_back(&mut self, carried: Carried, now: Instant) -> Carried {
        self.kept_back = self.kept_back.filter(|(_, at)| elapsed(*at, now) < KEPT_BACK_FOR);
        let Some((packets, _)) = &mut self.kept_back else { return carried };
        let own = carried.lost.min(*packets);
        *packets -= own;
        Carried { sent: carried.sent.saturating_sub(own), lost: carried.lost - own, ..carried }
    }

    /// Since when the score is above nothing, if it is.
    fn count(&mut self, carried: Carried, now: Instant) -> Option<Instant> {
        // What is declared lost now may have been sent before the last look.
        let arrived = carried.sent.saturating_sub(carried.lost);
        let rise = carried.lost.saturating_mul(LOST).saturating_sub(arrived).min(AT_ONCE);
        let fall = arrived.saturating_sub(carried.lost.saturating_mul(LOST));
        self.score = (self.score + rise).min(ENOUGH + AT_ONCE).saturating_sub(fall);
        (self.sent, self.lost) = (self.sent + carried.sent, self.lost + carried.lost);
        if self.sent > SHARE_OF {
            (self.sent, self.lost) = (self.sent / 2, self.lost / 2);
        }
        if self.score == 0 {
            (self.since, self.blamed_udp_at) = (None, None);
            return None;
        }
        Some(*self.since.get_or_insert(now))
    }

    fn percent(&self) -> u8 {
        u8::try_from(self.lost.saturating_mul(100) / self.sent.max(1)).map_or(100, |percent| percent.min(100))
    }
}

#[cfg(test)]
mod tests;
