//! Whether another relay carries while this one restarts.

use gateway_proto::{id::RelayId, relay::LinkEnd};
use tokio::sync::watch;

use crate::peer::Links;

/// Whether a relay beside this one is attached, and is not about to stop.
pub(super) fn another_stands(this: RelayId, links: &watch::Receiver<Links>) -> bool {
    links.borrow().iter().any(|(relay, link)| *relay != this && link.state.borrow().stands())
}

/// Waits until no other relay stands, if this one restarts and another one did; says how the link ended, seen from then.
/// `changes` is told of every change of any link.
pub(super) async fn alone_after(
    this: RelayId,
    links: &watch::Receiver<Links>,
    mut changes: watch::Receiver<u64>,
    end: LinkEnd,
) -> LinkEnd {
    let LinkEnd::Restarting { asked, is_only: false } = end else { return std::future::pending().await };
    while another_stands(this, links) {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
    LinkEnd::Restarting { asked, is_only: true }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Arc, time::Duration};

    use tokio::{sync::mpsc, time::timeout};

    use super::*;
    use crate::{
        relay_link::{LinkHandle, LinkState},
        relay_udp::UdpLeg,
    };

    fn handle(id: RelayId) -> (LinkHandle, watch::Sender<LinkState>) {
        let (state_tx, state) = watch::channel(LinkState { attached: true, ..LinkState::default() });
        let (datagrams, signals) = (mpsc::channel(1).0, mpsc::channel(1).0);
        (
            LinkHandle { datagrams, signals, state, asked: watch::Sender::new(0), leg: Arc::new(UdpLeg::of(id)) },
            state_tx,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_that_a_relay_asks_for_ends_when_the_other_one_falls_or_restarts_too() {
        let [this, other] = [1, 2].map(|byte| RelayId::new(1, [byte; 10]));
        for restarting in [false, true] {
            let ((own, _own_state), (beside, state)) = (handle(this), handle(other));
            let (links, changes) = (watch::Sender::new(Links::default()), watch::Sender::new(0_u64));
            let end = |is_only| LinkEnd::Restarting { asked: Duration::from_secs(5), is_only };
            assert!(!another_stands(this, &links.subscribe()));
            links.send_replace(Arc::new(vec![(this, own), (other, beside)]));
            let seen = links.subscribe();
            assert!(another_stands(this, &seen));
            let waits = alone_after(this, &seen, changes.subscribe(), end(false));
            assert!(timeout(Duration::from_secs(3_600), waits).await.is_err(), "the other one carries");
            let mut waits = pin!(alone_after(this, &seen, changes.subscribe(), end(false)));
            assert!(futures_util::poll!(&mut waits).is_pending());
            state.send_replace(LinkState { attached: restarting, restarting, ..LinkState::default() });
            changes.send_modify(|count| *count += 1);
            assert_eq!(waits.await, end(true));
        }
    }
}
