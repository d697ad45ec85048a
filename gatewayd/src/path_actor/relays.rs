//! The relay links that carry what goes to the peer: the choice is [`RelayChoice`](gateway_proto::relay::RelayChoice)'s, told
//! here of links, silence and answers, and of how much goes over relays at all.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use gateway_proto::{
    id::RelayId,
    path::{Carried, Selected},
    relay::{Choice, LossVerdict, Seen, Share},
};

use tracing::info;

use super::PathActor;
use crate::relay_link::{LinkHandle, Reliance};

/// The links in use.
#[derive(Debug, Default)]
pub(super) struct Relays {
    /// What is relayed goes over this one.
    pub(super) link: Option<(RelayId, LinkHandle)>,
    /// And over these as well.
    pub(super) spares: Vec<(RelayId, LinkHandle)>,
    /// Tells the link in use that the tunnel goes over nothing else, and those that are wanted back, so that their relays are not stayed
    /// away from for long.
    relies: Vec<Reliance>,
    pub(super) choice: Choice,
    /// When it is to be made anew although nothing happens.
    pub(super) choose_at: Option<Instant>,
}

impl PathActor {
    /// Chooses the links anew: something that speaks for one or another may have changed.
    pub(super) fn choose_relays(&mut self) {
        let (links, now) = (self.context.links.borrow().clone(), Instant::now());
        let seen: Vec<_> = links.iter().filter_map(|(relay, link)| see(*relay, link)).collect();
        let (answered_at, has_tunnel) = (self.peer.proof.answered_at(), self.peer.tunnel.borrow().is_some());
        let share = self.share();
        let (choice, choose_at) = self.arrivals.with(|choice| {
            choice.set_tunnel(has_tunnel, now);
            choice.set_share(share, now);
            (choice.choose(&seen, answered_at, now), choice.poll_timeout(now))
        });
        let handle = |wanted: RelayId| links.iter().find(|(relay, _)| *relay == wanted).cloned();
        let relays = &mut self.relays;
        relays.link = choice.best.and_then(handle);
        relays.spares = choice.spare.into_iter().chain(choice.further.iter().copied()).filter_map(handle).collect();
        let relied_on = relays.link.as_ref().filter(|_| has_tunnel && share == Share::Everything);
        let wanted_back = choice.wanted_back.iter().copied().filter_map(handle);
        let relied_on = relied_on.cloned().into_iter().chain(wanted_back);
        relays.relies = relied_on.map(|(_, link)| link.rely()).collect();
        let (begins_anew, seeks_anew, asks_peer) = (choice.begins_anew, choice.seeks_anew, choice.asks_peer);
        (relays.choice, relays.choose_at) = (choice, choose_at);
        let rtt = relays.link.as_ref().and_then(|(_, link)| link.state().borrow().rtt);
        self.agent.handle_relay_state(self.relays.link.is_some(), rtt, now);
        self.write_route();
        if self.agent.selected() != Selected::Relayed {
            return;
        }
        if begins_anew {
            self.doubt_path();
            if seeks_anew {
                self.peer.handshake_doubted();
            }
        } else if asks_peer {
            self.peer.proof.nudge();
        }
    }

    /// Something may be worth knowing of the peer's packets that come over relays.
    pub(super) fn look_at_arrivals(&mut self) {
        if self.arrivals.take_another_way() {
            self.agent.peer_doubts(Instant::now());
        }
        self.choose_relays();
        if self.relays.choice.is_heard_elsewhere {
            self.ask_relay();
        }
    }

    /// What went to the peer has no answer: the relay, or the peer's way to it, may be gone.
    pub(super) fn miss_answer(&mut self) {
        self.ask_relay();
        let (answered_at, share, now) = (self.peer.proof.answered_at(), self.share(), Instant::now());
        self.arrivals.with(|choice| {
            choice.set_share(share, now);
            choice.in_vain(answered_at, now);
        });
        self.choose_relays();
    }

    /// What the tunnel counts of what it sent, if everything goes over a relay: one that loses much is left.
    pub(super) fn weigh_relay(&mut self, carried: Carried, now: Instant) {
        let kept_back = self.arrivals.take_kept_back();
        if self.agent.selected() != Selected::Relayed {
            return;
        }
        match self.arrivals.with(|choice| choice.carried(carried, kept_back, now)) {
            LossVerdict::Bearable => {}
            LossVerdict::BlamesUdp => {
                if let Some((_, link)) = &self.relays.link {
                    link.blame_udp();
                }
            }
            LossVerdict::BlamesRelay { relay, percent } => {
                info!(peer = %self.peer.key.short(), %relay, percent, "too much of what goes over the relay is lost");
                self.context.socket.counters().lossy_relays.fetch_add(1, Relaxed);
                self.choose_relays();
            }
        }
    }

    /// Asks the relay for a sign of life, if everything goes over it.
    pub(super) fn ask_relay(&self) {
        if let (Selected::Relayed, Some((_, link))) = (self.agent.selected(), &self.relays.link) {
            link.ask();
        }
    }

    /// How much of what goes to the peer goes over relays.
    fn share(&self) -> Share {
        match self.agent.selected() {
            Selected::Direct { duplicate: false, .. } => Share::Nothing,
            Selected::Direct { duplicate: true, .. } => Share::Copies,
            Selected::None | Selected::Relayed => Share::Everything,
        }
    }
}

/// How a link stands that is attached.
fn see(relay: RelayId, link: &LinkHandle) -> Option<Seen> {
    let state = link.state();
    let state = state.borrow();
    let seen = Seen {
        relay,
        standing: state.standing,
        restarting: state.restarting,
        falls: state.carrier_falls,
        drops: state.limit.map(|limit| limit.percent),
    };
    state.attached.then_some(seen)
}
