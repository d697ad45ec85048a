//! More relays than a gateway chose for itself, while only one of those stands.

use std::time::{Duration, Instant};

use super::HomeChooser;
use crate::id::RelayId;

/// Two gateways that each have as many of three relays have one in common.
const ENOUGH_STAND: usize = 2;
/// Those that came stay for so long after enough of the others stand: what fails again and again would let them come and go.
const KEPT_FOR: Duration = Duration::from_secs(60);

impl HomeChooser {
    /// Adds relays to those that were chosen, while only one stands of all: one, and another when that does not stand soon either. The order
    /// of the map says which, and no measurement, so that two gateways that have no relay in common any more meet at one.
    pub(super) fn join_others(&mut self, wanted: &mut Vec<RelayId>, now: Instant) {
        if self.links.standing(wanted) < ENOUGH_STAND {
            self.joined_until = Some(now + KEPT_FOR);
        } else if self.joined_until.is_some_and(|until| now >= until) {
            self.joined.clear();
        }
        let kept: Vec<_> = self.joined.iter().filter(|relay| !wanted.contains(relay)).copied().collect();
        wanted.extend(kept);
        if self.links.standing(wanted) == 1
            && self.links.are_settled(wanted, now)
            && let Some(next) = self.map.iter().find(|relay| !wanted.contains(relay)).copied()
        {
            self.joined.push(next);
            wanted.push(next);
        }
    }
}

#[cfg(test)]
mod tests;
