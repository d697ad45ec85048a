//! Which peers ports were guessed for in the last 24 hours, over a restart.
//!
//! A run looks like a scan to whoever guards the peer's network, so a gateway that is restarted all the time must not make more of them. Over a
//! restart only the clock of the calendar tells how long ago one was, and it may have been set meanwhile: a run that seems to be yet to come was just now.
//! So a clock that was ahead costs a peer one day without guessing at most while the daemon runs, and never gives a run more, while one that jumps ahead gives two at most.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{DAY, MAX_GUESS_RUNS_PER_DAY};
use crate::identity::GatewayPublicKey;

/// Peers remembered. Of more the one whose last run is longest ago is forgotten.
const MAX_PEERS: usize = 4_096;

/// The runs of the last 24 hours, by peer; Unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuessLedger(BTreeMap<GatewayPublicKey, Vec<u64>>);

impl GuessLedger {
    /// A run for this peer begins.
    pub fn note(&mut self, peer: GatewayPublicKey, unix_secs: u64) {
        self.0.entry(peer).or_default().push(unix_secs);
        self.0.retain(|_, runs| {
            runs.iter_mut().for_each(|at| *at = (*at).min(unix_secs));
            runs.retain(|at| is_of_today(*at, unix_secs));
            runs.drain(..runs.len().saturating_sub(MAX_GUESS_RUNS_PER_DAY));
            !runs.is_empty()
        });
        while self.0.len() > MAX_PEERS {
            let others = self.0.iter().filter(|(other, _)| **other != peer);
            let Some(oldest) = others.min_by_key(|(_, runs)| runs.last().copied()).map(|(oldest, _)| *oldest) else {
                return;
            };
            self.0.remove(&oldest);
        }
    }

    /// How long ago the runs for this peer were, those of the last 24 hours.
    pub fn ages(&self, peer: &GatewayPublicKey, unix_secs: u64) -> Vec<Duration> {
        let runs = self.0.get(peer).into_iter().flatten().filter(|at| is_of_today(**at, unix_secs));
        runs.map(|at| Duration::from_secs(unix_secs.saturating_sub(*at))).collect()
    }
}

fn is_of_today(at: u64, unix_secs: u64) -> bool {
    unix_secs.saturating_sub(at) < DAY.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::GatewayKey, path::guess::RunsToday, path::test_clock::start};

    const NOW: u64 = 1_800_000_000;
    const HOUR: u64 = 3_600;

    fn peer(n: u8) -> GatewayPublicKey {
        GatewayKey::from_seed(&[n; 32]).public()
    }

    /// Whether a run may begin, at times so many hours after a restart.
    fn after_restart(ledger: &GuessLedger, unix_secs: u64, hours: [u64; 3]) -> [bool; 3] {
        let mut runs = RunsToday::default();
        runs.resume(ledger.ages(&peer(1), unix_secs), start());
        hours.map(|hours| runs.may_run(start() + Duration::from_secs(hours * HOUR)))
    }

    #[test]
    fn two_runs_a_day_stay_two_over_a_restart() {
        let mut ledger = GuessLedger::default();
        ledger.note(peer(1), NOW);
        assert_eq!(after_restart(&ledger, NOW + 1, [0, 1, 2]), [true; 3], "one is left");
        ledger.note(peer(1), NOW + 2 * HOUR);
        let text = serde_json::to_string(&ledger).unwrap();
        let read: GuessLedger = serde_json::from_str(&text).unwrap();
        assert_eq!(read, ledger, "{text}");
        assert_eq!(after_restart(&read, NOW + 3 * HOUR, [0, 20, 21]), [false, false, true]);
        assert_eq!(after_restart(&read, NOW + 24 * HOUR, [0, 1, 2]), [true; 3]);
        assert!(read.ages(&peer(2), NOW).is_empty(), "another peer has runs of its own");
    }

    #[test]
    fn a_run_that_a_wrong_clock_put_into_the_future_was_just_now_and_is_forgotten_after_a_day() {
        let mut ledger = GuessLedger::default();
        ledger.note(peer(1), NOW + 400 * 24 * HOUR);
        ledger.note(peer(1), NOW + 400 * 24 * HOUR);
        assert_eq!(after_restart(&ledger, NOW, [0, 23, 24]), [false, false, true]);
        ledger.note(peer(2), NOW);
        assert_eq!(ledger.ages(&peer(1), NOW + HOUR), [Duration::from_secs(HOUR); 2], "the next note puts it right");
        assert!(ledger.ages(&peer(1), NOW + 24 * HOUR).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes() {
        let mut ledger = GuessLedger::default();
        let key = |n: usize| {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
            GatewayKey::from_seed(&seed).public()
        };
        for n in 0..=MAX_PEERS {
            ledger.0.insert(key(n), vec![NOW + n as u64]);
        }
        ledger.note(peer(1), NOW + HOUR * 2);
        assert_eq!(ledger.0.len(), MAX_PEERS);
        assert!(!ledger.0.contains_key(&key(0)) && !ledger.0.contains_key(&key(1)) && ledger.0.contains_key(&key(2)));
        for _ in 0..10 {
            ledger.note(peer(1), NOW + HOUR * 3);
        }
        assert_eq!(ledger.ages(&peer(1), NOW + HOUR * 3).len(), MAX_GUESS_RUNS_PER_DAY);
        ledger.note(peer(2), NOW + 48 * HOUR);
        assert_eq!(ledger.0.len(), 1, "yesterday's are forgotten");
    }
}
