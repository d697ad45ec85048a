//! The newest heads of audit logs that gateways reported here and nobody has written down.
//!
//! A head is what shows that a tail was cut off while its gateway was down, so none is lost between the registry and the database:
//! whoever takes some away to write them holds a [`TakenHeads`], and what is not written goes back with it.

use gateway_proto::{audit::heads::ReportedHead, id::ServerId, identity::GatewayPublicKey};

use super::Watchers;

/// A head of an audit log, and whose it is.
pub type GatewayHead = (GatewayPublicKey, ReportedHead);

/// Heads that were taken away to be written down. What is left of them when it is dropped, as in a round that is given up, goes back
/// where nothing newer has come.
#[derive(Debug)]
pub struct TakenHeads {
    watchers: Watchers,
    /// What is not written down yet.
    pub heads: Vec<(ServerId, GatewayHead)>,
}

impl Watchers {
    /// Takes away the newest head of a gateway's audit log that is not written down; another gateway of the server has its own.
    pub fn take_head(&self, server: ServerId, gateway: GatewayPublicKey) -> TakenHeads {
        let mut registry = self.lock();
        let is_own = registry.heads.get(&server).is_some_and(|(whose, _)| *whose == gateway);
        let head = if is_own { registry.heads.remove(&server) } else { None };
        self.taken(head.map(|head| (server, head)).into_iter().collect())
    }

    /// Takes some of them away.
    pub fn take_heads(&self, limit: usize) -> TakenHeads {
        let mut registry = self.lock();
        let servers: Vec<_> = registry.heads.keys().take(limit).copied().collect();
        self.taken(servers.into_iter().filter_map(|server| Some((server, registry.heads.remove(&server)?))).collect())
    }

    fn taken(&self, heads: Vec<(ServerId, GatewayHead)>) -> TakenHeads {
        TakenHeads { watchers: self.clone(), heads }
    }
}

impl TakenHeads {
    /// The head of the one gateway that was asked for.
    pub fn one(&self) -> Option<ReportedHead> {
        self.heads.first().map(|(_, (_, head))| head.clone())
    }
}

impl Drop for TakenHeads {
    fn drop(&mut self) {
        if self.heads.is_empty() {
            return;
        }
        let mut registry = self.watchers.lock();
        for (server, head) in self.heads.drain(..) {
            registry.heads.entry(server).or_insert(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::identity::GatewayKey;

    use super::*;

    fn head(sequence: u64) -> ReportedHead {
        ReportedHead { sequence, hash: "0".repeat(64), at: 1, received_at: 1 }
    }

    #[test]
    fn what_was_taken_and_not_written_goes_back_where_nothing_newer_has_come() {
        let watchers = Watchers::default();
        let (server, other) = (ServerId::new(1, [1; 10]), ServerId::new(1, [2; 10]));
        let key = GatewayKey::from_seed(&[1; 32]).public();
        let watches = [server, other].map(|server| watchers.enter(server, watchers.next_session(), 1));
        watches.iter().for_each(|watch| watch.audit_head(key, head(1)));
        let taken = watchers.take_heads(10);
        assert_eq!((taken.heads.len(), watchers.take_heads(10).heads.len()), (2, 0));
        watches[0].audit_head(key, head(2));
        drop(taken);
        assert_eq!(watchers.take_head(server, GatewayKey::from_seed(&[2; 32]).public()).one(), None, "another gateway");
        for (server, sequence) in [(server, 2), (other, 1)] {
            let mut taken = watchers.take_head(server, key);
            assert_eq!(taken.one(), Some(head(sequence)));
            taken.heads.clear();
        }
        assert!(watchers.take_heads(10).heads.is_empty(), "what was written does not");
    }
}
