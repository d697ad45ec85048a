//! How fast somebody may do something through one admin connection: guessing passwords is no engine's concern by default, and
//! calls without end would push all others out of the log.

use std::{collections::BTreeMap, time::Duration};

use crate::id::ConnectionId;

/// Connections remembered at most; the one that is nearest to full again is forgotten first.
const MAX_CONNECTIONS: usize = 4096;
/// Nobody is made to wait longer than this.
const MAX_PACE: Duration = Duration::from_secs(10);

/// Counts per connection. Time is any clock that only goes up.
#[derive(Debug)]
pub struct ConnectionLimiter {
    burst: u32,
    refill: Duration,
    /// When the last of what was taken so far is paid back.
    paid_at: BTreeMap<ConnectionId, Duration>,
}

impl ConnectionLimiter {
    /// For attempts to sign in: 10 at once, and then one in 6 s.
    pub fn sign_ins() -> Self {
        Self { burst: 10, refill: Duration::from_secs(6), paid_at: BTreeMap::new() }
    }

    /// For calls: 1,000 at once, an Administrator's start on an engine with many channels among them, and then 20 in a second.
    pub fn calls() -> Self {
        Self { burst: 1000, refill: Duration::from_millis(50), paid_at: BTreeMap::new() }
    }

    /// Takes one, or none and says how long to wait for the next.
    pub fn attempt(&mut self, connection: ConnectionId, now: Duration) -> Result<(), Duration> {
        let debt = self.debt(connection, now);
        if debt > self.free() {
            return Err(debt - self.free());
        }
        self.owes(connection, now + debt);
        Ok(())
    }

    /// Takes one in any case, and says how long to wait before it is used: at most 10 s, so that calls which are given up while
    /// they wait do not lock their connection out.
    pub fn pace(&mut self, connection: ConnectionId, now: Duration) -> Duration {
        let debt = self.debt(connection, now).min(self.free() + MAX_PACE);
        self.owes(connection, now + debt);
        debt.saturating_sub(self.free())
    }

    /// What a connection owes with one more.
    fn debt(&self, connection: ConnectionId, now: Duration) -> Duration {
        let paid_at = self.paid_at.get(&connection).copied().unwrap_or(now);
        paid_at.saturating_sub(now) + self.refill
    }

    /// What it may owe.
    fn free(&self) -> Duration {
        self.refill * self.burst
    }

    fn owes(&mut self, connection: ConnectionId, paid_at: Duration) {
        if self.paid_at.len() >= MAX_CONNECTIONS && !self.paid_at.contains_key(&connection) {
            let nearest = self.paid_at.iter().min_by_key(|(_, paid)| **paid).map(|(id, _)| *id);
            if let Some(id) = nearest {
                self.paid_at.remove(&id);
            }
        }
        self.paid_at.insert(connection, paid_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn connections() -> (ConnectionId, ConnectionId) {
        (ConnectionId::new(1, [1; 10]), ConnectionId::new(1, [2; 10]))
    }

    #[test]
    fn guessing_is_slowed_down_per_connection() {
        let (one, other) = connections();
        let mut limiter = ConnectionLimiter::sign_ins();
        for _ in 0..10 {
            assert_eq!(limiter.attempt(one, START), Ok(()));
        }
        let refill = Duration::from_secs(6);
        assert_eq!(limiter.attempt(one, START), Err(refill));
        assert_eq!(limiter.attempt(other, START), Ok(()));
        assert_eq!(limiter.attempt(one, START + refill), Ok(()));
        assert!(limiter.attempt(one, START + refill).is_err());
    }

    #[test]
    fn calls_without_end_pass_at_the_rate_and_leave_others_alone() {
        let (one, other) = connections();
        let mut limiter = ConnectionLimiter::calls();
        assert!((0..1000).all(|_| limiter.pace(one, START).is_zero()));
        // Each waits for the one before it.
        let waits: Vec<_> = (0..4).map(|_| limiter.pace(one, START).as_millis()).collect();
        assert_eq!(waits, [50, 100, 150, 200]);
        assert!(limiter.pace(other, START).is_zero());
        assert!(limiter.pace(one, START + Duration::from_secs(1)).is_zero());
    }

    #[test]
    fn calls_that_are_given_up_while_they_wait_lock_nobody_out() {
        let (one, _) = connections();
        let mut limiter = ConnectionLimiter::calls();
        for _ in 0..100_000 {
            assert!(limiter.pace(one, START) <= MAX_PACE);
        }
        assert!(limiter.pace(one, START + Duration::from_secs(11)).is_zero());
    }

    #[test]
    fn the_table_does_not_grow_without_end() {
        let mut limiter = ConnectionLimiter::sign_ins();
        for n in 0..MAX_CONNECTIONS as u64 + 10 {
            limiter.attempt(ConnectionId::new(n, [0; 10]), Duration::ZERO).unwrap();
        }
        assert_eq!(limiter.paid_at.len(), MAX_CONNECTIONS);
    }
}
