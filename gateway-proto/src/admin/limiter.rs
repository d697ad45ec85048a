//! How often somebody may try to sign in through one admin connection: guessing passwords is no engine's concern by default.

use std::{collections::BTreeMap, time::Duration};

use crate::id::ConnectionId;

/// Attempts that may come at once.
const BURST: u32 = 10;
/// After them, one attempt in this time.
const REFILL: Duration = Duration::from_secs(6);
/// Connections remembered at most; the one that is nearest to full again is forgotten first.
const MAX_CONNECTIONS: usize = 4096;

/// Counts attempts per connection. Time is any clock that only goes up.
#[derive(Debug, Default)]
pub struct LoginLimiter {
    /// When the last of the attempts taken so far is paid back.
    paid_at: BTreeMap<ConnectionId, Duration>,
}

impl LoginLimiter {
    /// Takes one attempt, or says how long to wait for the next.
    pub fn attempt(&mut self, connection: ConnectionId, now: Duration) -> Result<(), Duration> {
        let paid = self.paid_at.get(&connection).copied().unwrap_or(now).max(now) + REFILL;
        let debt = paid - now;
        if debt > REFILL * BURST {
            return Err(debt - REFILL * BURST);
        }
        if self.paid_at.len() >= MAX_CONNECTIONS && !self.paid_at.contains_key(&connection) {
            let nearest = self.paid_at.iter().min_by_key(|(_, paid)| **paid).map(|(id, _)| *id);
            if let Some(id) = nearest {
                self.paid_at.remove(&id);
            }
        }
        self.paid_at.insert(connection, paid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_is_slowed_down_per_connection() {
        let (one, other) = (ConnectionId::new(1, [1; 10]), ConnectionId::new(1, [2; 10]));
        let mut limiter = LoginLimiter::default();
        let start = Duration::from_secs(100);
        for _ in 0..BURST {
            assert_eq!(limiter.attempt(one, start), Ok(()));
        }
        assert_eq!(limiter.attempt(one, start), Err(REFILL));
        assert_eq!(limiter.attempt(other, start), Ok(()));
        assert_eq!(limiter.attempt(one, start + REFILL), Ok(()));
        assert!(limiter.attempt(one, start + REFILL).is_err());
    }

    #[test]
    fn the_table_does_not_grow_without_end() {
        let mut limiter = LoginLimiter::default();
        for n in 0..MAX_CONNECTIONS as u64 + 10 {
            limiter.attempt(ConnectionId::new(n, [0; 10]), Duration::ZERO).unwrap();
        }
        assert_eq!(limiter.paid_at.len(), MAX_CONNECTIONS);
    }
}
