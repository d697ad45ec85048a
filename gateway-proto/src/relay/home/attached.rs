//! The relays to attach to: home, and spares by latency.

use std::time::Instant;

use super::{CALM, HomeChooser};
use crate::id::RelayId;

impl HomeChooser {
    /// The relays to attach to by latency, `count` of them where the map has so many, the home first. One that was chosen stays until
    /// another is a third better, or of another region than home where it is not, and no two are exchanged shortly after
    /// each other. One that is down is exchanged at once for one that is not.
    pub(super) fn attach(&mut self, count: usize, now: Instant) -> Vec<RelayId> {
        let mut chosen = self.chosen.clone();
        chosen.retain(|relay| self.map.contains(relay));
        let order = self.by_worth(now);
        self.replace_what_is_down(&mut chosen, &order, now);
        self.take_in_a_new_home(&mut chosen, count, now);
        if chosen.len() >= count && self.exchange_the_worst(&mut chosen, &order, now) {
            self.exchanged_at = Some(now);
        }
        let missing = count.saturating_sub(chosen.len());
        let others: Vec<_> = order.into_iter().filter(|relay| !chosen.contains(relay)).take(missing).collect();
        chosen.extend(others);
        chosen.sort_by_key(|relay| self.home != Some(*relay));
        self.chosen.clone_from(&chosen);
        chosen
    }

    /// The map, the most wanted first: home, then what is not down, what was measured, what stands elsewhere than home,
    /// what is near.
    fn by_worth(&self, now: Instant) -> Vec<RelayId> {
        let home = self.home_or_first(now);
        let beside = |relay: RelayId| home.is_some_and(|home| home != relay && self.together(relay, home));
        let mut order = self.map.clone();
        order.sort_by_key(|relay| {
            let latency = self.latency(*relay, now);
            (home != Some(*relay), self.links.is_down(*relay, now), latency.is_none(), beside(*relay), latency)
        });
        // The heir, unless another is better: two that are as good are not both needed.
        if let Some(heir) = home.and_then(|home| self.heir(home, now))
            && let Some(place) = order.iter().position(|relay| *relay == heir)
            && let Some(first) = order.iter().position(|relay| home != Some(*relay))
            && first < place
            && beside(order[first]) == beside(heir)
            && self.links.is_down(order[first], now) == self.links.is_down(heir, now)
            && self.latency(order[first], now).is_none() == self.latency(heir, now).is_none()
            && !self.latencies.clearly_better(order[first], heir, now)
        {
            order[first..=place].rotate_right(1);
        }
        order
    }

    /// What is down goes first, as long as there is something else. Home itself is left elsewhere: it may be the only one.
    fn replace_what_is_down(&self, chosen: &mut [RelayId], order: &[RelayId], now: Instant) {
        let is_down = |relay: RelayId| self.links.is_down(relay, now);
        let sound: Vec<_> =
            order.iter().filter(|relay| !chosen.contains(relay) && !is_down(**relay)).copied().collect();
        let down = chosen.iter_mut().filter(|relay| self.home != Some(**relay) && is_down(**relay));
        for (place, better) in down.zip(sound) {
            *place = better;
        }
    }

    /// A new home that was not among them: not at once, for the former one may be back soon, and is where partners still look.
    fn take_in_a_new_home(&self, chosen: &mut [RelayId], count: usize, now: Instant) {
        if let Some(home) = self.home.filter(|home| !chosen.contains(home) && self.map.contains(home))
            && chosen.len() >= count
            && self.settled_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM)
            && let Some(last) = chosen.last_mut()
        {
            *last = home;
        }
    }

    /// Exchanges the worst spare for the best relay that is not chosen, if that is clearly worth it. Whether it did.
    fn exchange_the_worst(&self, chosen: &mut [RelayId], order: &[RelayId], now: Instant) -> bool {
        let home = self.home_or_first(now);
        let beside = |relay: RelayId| home.is_some_and(|home| home != relay && self.together(relay, home));
        let calm = self.exchanged_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM);
        let best = order.iter().find(|relay| !chosen.contains(relay) && !self.links.is_down(**relay, now)).copied();
        let spares = chosen.iter_mut().filter(|relay| self.home != Some(**relay));
        let worst = spares.max_by_key(|relay| (beside(**relay), self.rank(**relay, now)));
        let (Some(best), Some(worst), true) = (best, worst, calm) else { return false };
        let is_worth_it = match (beside(*worst), beside(best)) {
            (true, false) => self.latency(best, now).is_some() || self.latency(*worst, now).is_none(),
            (false, true) => false,
            (true, true) | (false, false) => self.latencies.clearly_better(best, *worst, now),
        };
        if is_worth_it {
            *worst = best;
        }
        is_worth_it
    }

    /// Home, or what would be home.
    fn home_or_first(&self, now: Instant) -> Option<RelayId> {
        let home = self.home.filter(|home| self.map.contains(home));
        home.or_else(|| self.map.iter().min_by_key(|relay| self.rank(**relay, now)).copied())
    }
}
