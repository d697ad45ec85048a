//! The pause before a relay is tried again, and whether other relays carry meanwhile.

use std::pin::pin;

use gateway_net::entropy::random_u32;
use gateway_proto::{
    id::RelayId,
    policy::RelayEntry,
    relay::{LinkEnd, LinkRetry},
};
use tokio::{sync::watch, time::sleep};

use super::handle::Reliances;
use crate::peer::Links;

/// What is heeded between two attempts.
pub(super) struct Pause<'a> {
    pub(super) this: RelayId,
    pub(super) links: &'a watch::Receiver<Links>,
    /// The partners whom nothing but this relay reaches.
    pub(super) reliances: &'a Reliances,
    /// Told of every change of any link.
    pub(super) changes: &'a watch::Sender<u64>,
    /// Told whenever the machine's network changes.
    pub(super) network: &'a mut watch::Receiver<u64>,
    /// What the map says of the relay.
    pub(super) relay: &'a mut watch::Receiver<RelayEntry>,
}

impl Pause<'_> {
    /// Waits until the relay is to be tried again after a link that ended so.
    pub(super) async fn run(self, mut end: LinkEnd, retry: &mut LinkRetry) {
        let mut over = pin!(sleep(retry.pause(end, random_u32())));
        // What was said while the link stood is heeded by the next attempt, and hurries nobody.
        self.network.mark_unchanged();
        self.relay.mark_unchanged();
        loop {
            tokio::select! {
                () = &mut over => return,
                // Another network, another chance.
                Ok(()) = self.network.changed() => return retry.reset(),
                // Another key or place, too.
                Ok(()) = self.relay.changed() => return retry.reset(),
                // What carried meanwhile fell, or does not reach a partner: the pause that the relay asked for is not kept any more.
                alone = alone_after(self.this, self.links, self.reliances, self.changes.subscribe(), end) => {
                    end = alone;
                    over.set(sleep(retry.left_alone(random_u32())));
                }
            }
        }
    }
}

/// Whether something is without a way while this relay is away: no other one stands, or a partner is reached over none of those.
pub(super) fn is_only(this: RelayId, links: &watch::Receiver<Links>, reliances: &Reliances) -> bool {
    reliances.any() || !another_stands(this, links)
}

/// Whether a relay beside this one is attached, and is not about to stop.
fn another_stands(this: RelayId, links: &watch::Receiver<Links>) -> bool {
    links.borrow().iter().any(|(relay, link)| *relay != this && link.stands())
}

/// Waits until something is without a way, if this relay restarts and nothing was when it ended; says how the link ended, seen from
/// then. `changes` is told of every change of any link.
async fn alone_after(
    this: RelayId,
    links: &watch::Receiver<Links>,
    reliances: &Reliances,
    mut changes: watch::Receiver<u64>,
    end: LinkEnd,
) -> LinkEnd {
    let LinkEnd::Restarting { asked, is_only: false } = end else { return std::future::pending().await };
    while !is_only(this, links, reliances) {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = reliances.begun() => {}
        }
    }
    LinkEnd::Restarting { asked, is_only: true }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::{
        sync::mpsc,
        time::{Instant, timeout},
    };

    use super::*;
    use crate::{
        relay_link::{LinkHandle, LinkState},
        relay_udp::UdpLeg,
    };

    fn handle(id: RelayId) -> (LinkHandle, watch::Sender<LinkState>) {
        let (state_tx, state) = watch::channel(LinkState { attached: true, ..LinkState::default() });
        let (datagrams, signals) = (mpsc::channel(1).0, mpsc::channel(1).0);
        let (asked, leg, reliances) = (watch::Sender::new(0), Arc::new(UdpLeg::of(id)), Reliances::default());
        (LinkHandle { datagrams, signals, state, asked, leg, reliances }, state_tx)
    }

    /// What a pause heeds beside the links, as it is said and as it is heard.
    struct Said {
        changes: watch::Sender<u64>,
        network: watch::Sender<u64>,
        heard: watch::Receiver<u64>,
        _map: watch::Sender<RelayEntry>,
        relay: watch::Receiver<RelayEntry>,
    }

    impl Said {
        fn of(id: RelayId) -> Self {
            let (network, heard) = watch::channel(0);
            let entry = RelayEntry { id, url: String::new(), tls_pin: None, stun: Vec::new(), region: None };
            let (map, relay) = watch::channel(entry);
            Self { changes: watch::Sender::new(0), network, heard, _map: map, relay }
        }

        fn pause<'a>(
            &'a mut self,
            this: RelayId,
            links: &'a watch::Receiver<Links>,
            reliances: &'a Reliances,
        ) -> Pause<'a> {
            let Self { changes, heard, relay, .. } = self;
            Pause { this, links, reliances, changes, network: heard, relay }
        }
    }

    #[test]
    fn a_relay_is_the_only_one_as_long_as_it_alone_reaches_some_partner() {
        let [this, other] = [1, 2].map(|byte| RelayId::new(1, [byte; 10]));
        let ((own, _own_state), (beside, _state)) = (handle(this), handle(other));
        let links = watch::channel(Arc::new(vec![(this, own.clone()), (other, beside)])).1;
        let of_this = own.reliances.clone();
        assert!(!is_only(this, &links, &of_this), "the other one carries");
        let (one, two) = (own.rely(), own.rely());
        drop(one);
        assert!(is_only(this, &links, &of_this), "it does not reach the partner");
        drop(two);
        assert!(!is_only(this, &links, &of_this));
    }

    #[tokio::test(start_paused = true)]
    async fn another_network_ends_the_pause_also_after_the_other_relay_fell() {
        let [this, other] = [1, 2].map(|byte| RelayId::new(1, [byte; 10]));
        let ((own, _own_state), (beside, state)) = (handle(this), handle(other));
        let reliances = own.reliances.clone();
        let links = watch::channel(Arc::new(vec![(this, own), (other, beside)])).1;
        let (mut said, mut retry) = (Said::of(this), LinkRetry::default());
        let (changes, network) = (said.changes.clone(), said.network.clone());
        let begun = Instant::now();
        let pause = said.pause(this, &links, &reliances);
        let end = LinkEnd::Restarting { asked: Duration::from_secs(5), is_only: false };
        let mut waits = pin!(pause.run(end, &mut retry));
        assert!(futures_util::poll!(&mut waits).is_pending());
        state.send_replace(LinkState::default());
        changes.send_modify(|count| *count += 1);
        assert!(futures_util::poll!(&mut waits).is_pending(), "alone now, but not at once");
        network.send_modify(|count| *count += 1);
        waits.await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_that_a_relay_asks_for_ends_when_the_other_one_falls_or_restarts_too() {
        let [this, other] = [1, 2].map(|byte| RelayId::new(1, [byte; 10]));
        for restarting in [false, true] {
            let ((own, _own_state), (beside, state)) = (handle(this), handle(other));
            let (links, changes) = (watch::Sender::new(Links::default()), watch::Sender::new(0_u64));
            let end = |is_only| LinkEnd::Restarting { asked: Duration::from_secs(5), is_only };
            assert!(!another_stands(this, &links.subscribe()));
            let reliances = own.reliances.clone();
            links.send_replace(Arc::new(vec![(this, own), (other, beside)]));
            let seen = links.subscribe();
            assert!(another_stands(this, &seen));
            let waits = alone_after(this, &seen, &reliances, changes.subscribe(), end(false));
            assert!(timeout(Duration::from_secs(3_600), waits).await.is_err(), "the other one carries");
            let mut waits = pin!(alone_after(this, &seen, &reliances, changes.subscribe(), end(false)));
            assert!(futures_util::poll!(&mut waits).is_pending());
            state.send_replace(LinkState { attached: restarting, restarting, ..LinkState::default() });
            changes.send_modify(|count| *count += 1);
            assert_eq!(waits.await, end(true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_that_a_relay_asks_for_ends_when_a_partner_is_not_reached_over_the_other_one_that_stands() {
        let [this, other] = [1, 2].map(|byte| RelayId::new(1, [byte; 10]));
        let ((own, _own_state), (beside, _state)) = (handle(this), handle(other));
        let (reliances, partner) = (own.reliances.clone(), own.clone());
        let links = watch::channel(Arc::new(vec![(this, own), (other, beside)])).1;
        let (mut said, mut retry) = (Said::of(this), LinkRetry::default());
        let pause = said.pause(this, &links, &reliances);
        let begun = Instant::now();
        let end = LinkEnd::Restarting { asked: Duration::from_secs(5), is_only: false };
        let missed = async {
            sleep(Duration::from_secs(1)).await;
            let relies = partner.rely();
            // Said again at every choice of relays.
            let again = partner.rely();
            drop(relies);
            again
        };
        let (_relies, ()) = tokio::join!(missed, pause.run(end, &mut retry));
        let waited = begun.elapsed();
        assert!((1_250..=1_510).contains(&waited.as_millis()), "a second, and the pause of the only one: {waited:?}");
    }
}
