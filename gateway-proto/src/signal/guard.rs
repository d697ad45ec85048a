//! Which offers may still change something.

use super::{MAX_CLOCK_SKEW_MS, SignalError, SignalPayload};

/// Remembers the generation of the last offer of one peer, so that a replayed one changes nothing.
#[derive(Debug, Clone, Default)]
pub struct OfferGuard {
    last_generation: Option<u64>,
}

impl OfferGuard {
    /// Takes an authentic offer, or says why not; `unix_ms` is our clock.
    pub fn accept(&mut self, offer: &SignalPayload, unix_ms: u64) -> Result<(), SignalError> {
        let age_ms = unix_ms.saturating_sub(offer.sent_at_unix_ms);
        if age_ms > MAX_CLOCK_SKEW_MS {
            return Err(SignalError::Stale { age_ms });
        }
        let ahead_ms = offer.sent_at_unix_ms.saturating_sub(unix_ms);
        if ahead_ms > MAX_CLOCK_SKEW_MS {
            return Err(SignalError::FromTheFuture { ahead_ms });
        }
        if offer.generation > offer.sent_at_unix_ms.saturating_add(MAX_CLOCK_SKEW_MS) {
            return Err(SignalError::GenerationAhead);
        }
        if self.last_generation.is_some_and(|last| offer.generation <= last) {
            return Err(SignalError::Replayed);
        }
        self.last_generation = Some(offer.generation);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::NatReport;

    fn offer(generation: u64, sent_at_unix_ms: u64) -> SignalPayload {
        SignalPayload {
            generation,
            sent_at_unix_ms,
            probe_secret: [0; 32],
            nat: NatReport::default(),
            candidates: Vec::new(),
            guess: crate::signal::GuessReport::default(),
        }
    }

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn the_same_offer_is_accepted_once() {
        let mut guard = OfferGuard::default();
        assert_eq!(guard.accept(&offer(NOW, NOW), NOW), Ok(()));
        assert_eq!(guard.accept(&offer(NOW, NOW), NOW + 1), Err(SignalError::Replayed));
        assert_eq!(guard.accept(&offer(NOW - 1, NOW), NOW + 1), Err(SignalError::Replayed));
        assert_eq!(guard.accept(&offer(NOW + 1, NOW), NOW + 1), Ok(()));
    }

    #[test]
    fn an_offer_counts_for_a_minute_by_both_clocks() {
        let mut guard = OfferGuard::default();
        assert_eq!(guard.accept(&offer(1, NOW), NOW + 60_001), Err(SignalError::Stale { age_ms: 60_001 }));
        assert_eq!(guard.accept(&offer(1, NOW), NOW - 60_001), Err(SignalError::FromTheFuture { ahead_ms: 60_001 }));
        assert_eq!(guard.accept(&offer(1, NOW), NOW + 60_000), Ok(()));
        assert_eq!(guard.accept(&offer(2, NOW), NOW - 60_000), Ok(()));
    }

    #[test]
    fn a_clock_that_was_wrong_once_does_not_lock_the_peer_out() {
        let mut guard = OfferGuard::default();
        let far = NOW + 10_000_000;
        assert_eq!(guard.accept(&offer(far, NOW), NOW), Err(SignalError::GenerationAhead));
        assert_eq!(guard.accept(&offer(NOW, NOW), NOW), Ok(()), "the refused generation must not have been kept");
    }
}
