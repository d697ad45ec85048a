//! When something was noted last of a few relays.

use std::time::{Duration, Instant};

use crate::id::RelayId;

/// Relays remembered: more than a gateway is attached to, so that of those in use none is forgotten.
const MAX_RELAYS: usize = 16;

/// A time for each of at most 16 relays; of more, the one noted longest ago makes room.
#[derive(Debug, Default)]
pub(super) struct Lately(Vec<(RelayId, Instant)>);

impl Lately {
    /// Notes it now. When it was noted before.
    pub(super) fn note(&mut self, relay: RelayId, now: Instant) -> Option<Instant> {
        if let Some((_, at)) = self.0.iter_mut().find(|(known, _)| *known == relay) {
            return Some(std::mem::replace(at, now));
        }
        if self.0.len() >= MAX_RELAYS
            && let Some(oldest) = (0..self.0.len()).min_by_key(|index| self.0[*index].1)
        {
            self.0.swap_remove(oldest);
        }
        self.0.push((relay, now));
        None
    }

    /// When it was noted last.
    pub(super) fn at(&self, relay: RelayId) -> Option<Instant> {
        self.0.iter().find(|(known, _)| *known == relay).map(|(_, at)| *at)
    }

    /// Whether it was noted within this time.
    pub(super) fn is_within(&self, span: Duration, relay: RelayId, now: Instant) -> bool {
        self.at(relay).is_some_and(|at| elapsed(at, now) < span)
    }

    /// Every relay and its time.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RelayId, Instant)> + '_ {
        self.0.iter().copied()
    }
}

/// The time between the two, none when they come the other way round.
pub(super) fn elapsed(since: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(since)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a start for virtual time")]
    use super::*;

    #[test]
    fn of_more_relays_than_there_is_room_for_the_one_noted_longest_ago_goes() {
        let (mut lately, start) = (Lately::default(), Instant::now());
        let at = |step: u8| start + Duration::from_millis(step.into());
        for step in 0..100 {
            assert_eq!(lately.note(RelayId::from_bytes([step; 16]), at(step)), None);
            assert!(lately.iter().count() <= MAX_RELAYS);
        }
        assert!(lately.iter().all(|(_, noted)| noted >= at(84)));
        assert_eq!(lately.note(RelayId::from_bytes([90; 16]), at(101)), Some(at(90)));
        assert_eq!(lately.at(RelayId::from_bytes([90; 16])), Some(at(101)));
    }
}
