//! For how many peers a direct path is looked for.

use tokio::sync::watch;

/// Path actors count themselves in; the gatherer asks STUN more often while there is one.
#[derive(Debug, Clone, Default)]
pub struct Punching(watch::Sender<usize>);

impl Punching {
    /// The number of peers that want a direct path and have none, or a poor one.
    pub fn subscribe(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }

    /// One more, for as long as the guard lives.
    pub(crate) fn begin(&self) -> PunchingPeer {
        self.0.send_modify(|peers| *peers += 1);
        PunchingPeer(self.clone())
    }
}

/// A direct path to a peer is looked for.
#[derive(Debug)]
pub(crate) struct PunchingPeer(Punching);

impl Drop for PunchingPeer {
    fn drop(&mut self) {
        self.0.0.send_modify(|peers| *peers = peers.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_whose_actor_ends_is_counted_no_more() {
        let punching = Punching::default();
        let peers = punching.subscribe();
        let (one, other) = (punching.begin(), punching.begin());
        assert_eq!(*peers.borrow(), 2);
        drop(one);
        assert_eq!(*peers.borrow(), 1);
        drop(other);
        assert_eq!(*peers.borrow(), 0);
    }
}
