//! Which process of a gateway has its place here: two with one key do not push each other out for ever.
//!
//! Remembered is a [`Seat`] for each attached gateway that says which process it is, and of those that have left only where a second
//! one was there lately.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use gateway_proto::{
    relay::RelayAddress,
    twice::{Instance, Life, Seat, Verdict},
};

/// So many are remembered for each gateway that may be attached.
const SEATS_PER_PLACE: usize = 2;

#[derive(Debug)]
pub(crate) struct Seats {
    seats: Mutex<HashMap<RelayAddress, Seat>>,
    max: usize,
    begun: Instant,
}

impl Seats {
    /// For a relay with so many places.
    pub(crate) fn new(places: usize) -> Self {
        Self { seats: Mutex::default(), max: places.saturating_mul(SEATS_PER_PLACE), begun: Instant::now() }
    }

    /// Whether a process may attach. `linked` says of a gateway whether a process of it is attached that says which it is.
    pub(crate) fn admits(
        &self,
        address: RelayAddress,
        instance: Instance,
        linked: impl Fn(RelayAddress) -> bool,
    ) -> bool {
        let now = self.now();
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.len() >= self.max && !seats.contains_key(&address) {
            seats.retain(|known, _| linked(*known));
        }
        let life = if linked(address) { Life::Unasked } else { Life::Gone };
        seats.entry(address).or_default().enter(instance, None, life, now) != Verdict::Refused
    }

    /// The last link of a process has ended.
    pub(crate) fn leave(&self, address: RelayAddress, instance: Instance) {
        let now = self.now();
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seat) = seats.get_mut(&address).filter(|seat| seat.is_held_by(instance)) else { return };
        seat.leave(instance, now);
        if !seat.is_contested(now) {
            seats.remove(&address);
        }
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> RelayAddress {
        RelayAddress::from_bytes([n; 32])
    }

    fn instance(n: u8) -> Instance {
        Instance::from_random([n; 16])
    }

    #[test]
    fn the_older_of_two_processes_keeps_its_place_and_the_other_is_refused_while_it_is_there() {
        let seats = Seats::new(10);
        let admits = |n, is_linked| seats.admits(address(1), instance(n), |_| is_linked);
        assert!(admits(1, false));
        assert!(admits(2, true), "it may be a restart");
        assert!(admits(1, true), "but it is back");
        assert!(!admits(2, true));
        assert!(!admits(3, true), "nor does the second, started again");
        assert!(admits(1, true));
        seats.leave(address(1), instance(1));
        assert!(!admits(2, false), "it was only quicker than a restart");
        assert!(admits(4, false));
    }

    #[test]
    fn of_those_that_left_nothing_is_remembered_unless_there_were_two_and_that_is_bounded() {
        let seats = Seats::new(2);
        let count = || seats.seats.lock().unwrap().len();
        for n in 0..10 {
            assert!(seats.admits(address(n), instance(n), |_| false));
            seats.leave(address(n), instance(n));
            assert_eq!(count(), 0);
        }
        for n in 0..50 {
            seats.admits(address(n), instance(1), |known| known == address(n));
            seats.admits(address(n), instance(2), |known| known == address(n));
            seats.admits(address(n), instance(1), |known| known == address(n));
            seats.leave(address(n), instance(1));
            assert!(count() <= 4, "{n}");
        }
    }
}
