//! The relays that are attached to: the map of the policy, what was measured and how the links stand, brought together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use gateway_proto::{
    id::RelayId,
    policy::{PeerEntry, RelayEntry},
    relay::HomeChooser,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Mesh;
use crate::{
    peer::{Links, Peer},
    registry,
    relay_link::{LinkContext, LinkHandle, link},
};

/// Relays that we attach to for their latency: the home relay, and a spare that is ready when it fails. The heir of the home comes on top.
const OWN_RELAYS: usize = 2;
/// Links at most, with the home relays of peers.
pub(crate) const MAX_LINKS: usize = 8;

/// What runs, and what chooses.
#[derive(Debug, Default)]
pub(super) struct Relays {
    running: BTreeMap<RelayId, RunningRelay>,
    pub(super) chooser: HomeChooser,
    /// Relays of our own, as they were chosen last.
    own: Vec<RelayId>,
    /// Those of the policy's map, where peers may say that they live.
    map: Arc<BTreeSet<RelayId>>,
}

impl Relays {
    /// Tells a peer where the policy says that it lives.
    pub(super) fn tell_home(&self, peer: &Peer, entry: &PeerEntry) {
        peer.home.send_if_modified(|home| home.set_policy(entry.home_relay, &self.map));
    }
}

#[derive(Debug)]
struct RunningRelay {
    /// As the map has it, for the link.
    entry: watch::Sender<RelayEntry>,
    handle: LinkHandle,
    stop: CancellationToken,
}

impl Mesh {
    /// Tells the peers that run where a new policy says that they live.
    pub(super) fn take_homes(&mut self, relays: &[RelayEntry], peers: &[PeerEntry]) {
        self.relays.map = Arc::new(relays.iter().map(|relay| relay.id).collect());
        for entry in peers {
            if let Some(running) = self.peers.get(&entry.key.into()) {
                self.relays.tell_home(&running.peer, entry);
            }
        }
    }

    /// Makes the links that run equal to those that are wanted, and tells whoever works with them.
    pub(super) fn reconcile_relays(&mut self, relays: &[RelayEntry], peers: &[PeerEntry]) {
        let now = Instant::now();
        self.relays.chooser.set_map(relays.iter().map(|relay| (relay.id, relay.region.as_deref())));
        self.see_links();
        self.relays.own = self.relays.chooser.wanted(OWN_RELAYS, MAX_LINKS, now);
        let chosen = self.chosen(relays, peers);
        let is_new = self.run_links(&chosen);
        let running = |relay: &&RelayEntry| Some((relay.id, self.relays.running.get(&relay.id)?));
        let ordered: Vec<_> = chosen.iter().filter_map(running).collect();
        let shown = |(id, relay): &(RelayId, &RunningRelay)| registry::RunningRelay {
            entry: relay.entry.borrow().clone(),
            link: relay.handle.clone(),
            latency: self.relays.chooser.latency(*id, now),
            proxied: self.context.link.is_proxied(&relay.entry.borrow()),
        };
        let shown = ordered.iter().map(shown).collect();
        self.registry.lock().show_relays(shown);
        let links: Links = Arc::new(ordered.iter().map(|(id, relay)| (*id, relay.handle.clone())).collect());
        // Every path actor looks when it changes, so it changes only when there is something to see.
        self.context.links.send_if_modified(|current| {
            let ids = |links: &Links| links.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            let changed = is_new || ids(&*current) != ids(&links);
            if changed {
                *current = links;
            }
            changed
        });
        self.tell_servers(relays);
        self.see_links();
        self.choose_home();
    }

    /// The relays to attach to, as many as there may be.
    fn chosen<'a>(&self, relays: &'a [RelayEntry], peers: &[PeerEntry]) -> Vec<&'a RelayEntry> {
        let homes = peers.iter().filter_map(|peer| peer.home_relay).collect();
        let hints = self.peers.values().filter_map(|running| running.peer.home.borrow().hint()).collect();
        most_wanted(relays, &self.relays.own, &homes, &hints)
    }

    /// Starts and stops links. Whether one was started.
    fn run_links(&mut self, chosen: &[&RelayEntry]) -> bool {
        self.relays.running.retain(|id, running| {
            match chosen.iter().find(|relay| relay.id == *id) {
                // Whatever else the map says of it now, it is the same relay: the link goes on, and sees to it.
                Some(relay) => running.entry.send_if_modified(|entry| {
                    let changed = *entry != **relay;
                    entry.clone_from(relay);
                    changed
                }),
                None => {
                    running.stop.cancel();
                    false
                }
            };
            !running.stop.is_cancelled()
        });
        let mut is_new = false;
        for relay in chosen {
            if !self.relays.running.contains_key(&relay.id) {
                let (entry, stop) = (watch::Sender::new((*relay).clone()), self.stop.child_token());
                let context = self.context.link.clone();
                // A relay that floods takes the places of no other.
                let context = LinkContext { inbound: context.inbound.of_another_link(), ..context };
                let (handle, future) = link(entry.subscribe(), context, stop.clone());
                self.tasks.spawn(future);
                self.relays.running.insert(relay.id, RunningRelay { entry, handle, stop });
                is_new = true;
            }
        }
        is_new
    }

    /// Tells the gatherer and the probe of relays whom to ask.
    fn tell_servers(&self, relays: &[RelayEntry]) {
        let stun = relays.iter().flat_map(|relay| relay.stun.iter().cloned()).collect::<Vec<_>>();
        self.context.stun_servers.send_if_modified(|current| {
            let changed = *current != stun;
            *current = stun;
            changed
        });
        let targets = relays.iter().filter_map(|relay| Some((relay.id, relay.stun.first()?.clone()))).collect();
        self.context.relay_targets.send_if_modified(|current| {
            let changed = *current != targets;
            *current = targets;
            changed
        });
    }

    /// A round trip to a relay was measured: another may be home now, or be attached to.
    pub(super) fn take_latency(&mut self, relay: RelayId, rtt: Duration) {
        let now = Instant::now();
        self.relays.chooser.measured(relay, rtt, now);
        for shown in &mut self.registry.lock().relays {
            shown.latency = self.relays.chooser.latency(shown.entry.id, now);
        }
        self.choose_home();
        self.choose_relays();
    }

    /// Tells the chooser how the links stand.
    fn see_links(&mut self) {
        let Relays { running, chooser, .. } = &mut self.relays;
        chooser.links(running.iter().map(|(id, running)| (*id, running.handle.stands())), Instant::now());
    }

    /// Attaches to other relays, if the links that stand or fell ask for it.
    pub(super) fn choose_relays(&mut self) {
        self.see_links();
        if self.relays.chooser.wanted(OWN_RELAYS, MAX_LINKS, Instant::now()) != self.relays.own {
            self.attach();
        }
    }

    /// Attaches to what is wanted now.
    pub(super) fn attach(&mut self) {
        let view = self.context.authority.view();
        if let Some(policy) = view.policy.as_ref().filter(|_| view.takes_part()) {
            self.reconcile_relays(&policy.relays, &policy.peers);
        }
    }

    /// The relay where peers find us.
    pub(super) fn choose_home(&mut self) {
        let links = self.context.links.borrow().clone();
        let attached: Vec<_> = links.iter().filter(|(_, link)| link.stands()).map(|(id, _)| *id).collect();
        let next = self.relays.chooser.decide(&attached, Instant::now());
        let reason = self.relays.chooser.reason();
        let changes = self.relays.chooser.changes().clone();
        {
            let mut registry = self.registry.lock();
            (registry.home_reason, registry.home_changes) = (reason, changes);
        }
        let changed = self.context.home.send_if_modified(|home| std::mem::replace(home, next) != next);
        if let (true, Some(relay), Some(reason)) = (changed, next, reason) {
            info!(%relay, reason = reason.code(), "home relay: {reason}");
        }
    }
}

/// The relays of our own, then the homes of peers as the policy has them, then those that peers told themselves: what a peer says takes no other
/// one's place. As many as there may be.
fn most_wanted<'a>(
    relays: &'a [RelayEntry],
    own: &[RelayId],
    homes: &BTreeSet<RelayId>,
    hints: &BTreeSet<RelayId>,
) -> Vec<&'a RelayEntry> {
    let place = |relay: RelayId| {
        let at = own.iter().position(|id| *id == relay);
        let at_home = || homes.contains(&relay).then_some(MAX_LINKS);
        at.or_else(at_home).or_else(|| hints.contains(&relay).then_some(MAX_LINKS + 1))
    };
    let mut placed: Vec<_> = relays.iter().filter_map(|relay| Some((place(relay.id)?, relay))).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.truncate(MAX_LINKS);
    placed.into_iter().map(|(_, relay)| relay).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> RelayId {
        RelayId::from_bytes([number; 16])
    }

    fn map(count: u8) -> Vec<RelayEntry> {
        let entry = |number| RelayEntry {
            id: id(number),
            url: format!("wss://relay-{number}.example/relay"),
            tls_pin: None,
            stun: Vec::new(),
            region: None,
        };
        (1..=count).map(entry).collect()
    }

    fn wanted(map: &[RelayEntry], own: &[u8], homes: &[u8], hints: &[u8]) -> Vec<RelayId> {
        let ids = |numbers: &[u8]| numbers.iter().map(|number| id(*number)).collect::<BTreeSet<_>>();
        let own: Vec<_> = own.iter().map(|number| id(*number)).collect();
        most_wanted(map, &own, &ids(homes), &ids(hints)).into_iter().map(|relay| relay.id).collect()
    }

    #[test]
    fn our_own_relays_come_first_then_the_homes_of_the_policy_and_then_what_peers_say() {
        assert_eq!(wanted(&map(6), &[3, 1], &[6, 3], &[2, 6, 9]), [3, 1, 6, 2].map(id));
    }

    #[test]
    fn what_peers_say_takes_the_place_of_no_home_of_the_policy_and_no_more_than_there_are() {
        let says_everything: Vec<u8> = (1..=20).collect();
        let homes = [14, 15, 16, 17, 18, 19];
        assert_eq!(wanted(&map(20), &[20, 13], &homes, &says_everything), [20, 13, 14, 15, 16, 17, 18, 19].map(id));
        let chosen = wanted(&map(20), &[20, 13], &homes[..4], &says_everything);
        assert_eq!(chosen, [20, 13, 14, 15, 16, 17, 1, 2].map(id));
    }
}
