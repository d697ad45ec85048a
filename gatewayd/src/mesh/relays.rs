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
    peer::Links,
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
}

#[derive(Debug)]
struct RunningRelay {
    /// As the map has it, for the link.
    entry: watch::Sender<RelayEntry>,
    handle: LinkHandle,
    stop: CancellationToken,
}

impl Mesh {
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

    /// The relays of our own and the homes of peers, the most wanted first, as many as there may be.
    fn chosen<'a>(&self, relays: &'a [RelayEntry], peers: &[PeerEntry]) -> Vec<&'a RelayEntry> {
        let own = &self.relays.own;
        let homes: BTreeSet<_> = peers.iter().filter_map(|peer| peer.home_relay).collect();
        let mut chosen: Vec<_> =
            relays.iter().filter(|relay| own.contains(&relay.id) || homes.contains(&relay.id)).collect();
        chosen.sort_by_key(|relay| own.iter().position(|id| *id == relay.id).unwrap_or(MAX_LINKS));
        chosen.truncate(MAX_LINKS);
        chosen
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
        if self.relays.chooser.wanted(OWN_RELAYS, MAX_LINKS, Instant::now()) == self.relays.own {
            return;
        }
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
