//! What everybody may know of a peer.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use gateway_proto::{
    id::RelayId,
    identity::GatewayPublicKey,
    path::{Candidate, LocalSocket, NatView, PathReason, PathSnapshot},
    policy::ServerName,
    relay::{HintOutcome, PeerHome},
};
use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
    watch,
};
use tracing::debug;

use crate::{
    proof::Proof, relay_inbound::RelayInbound, relay_link::LinkHandle, socket::SocketCounters, tunnel::Tunnel,
};

/// Commands that wait for a path actor; a peer or stranger that sends faster loses probes, not ours. A relay has places of its own
/// for half of them.
const COMMANDS: usize = 128;

/// Our own addresses, as gathered last.
#[derive(Debug, Clone, Default)]
pub struct LocalCandidates {
    /// Host and server-reflexive candidates.
    pub candidates: Vec<Candidate>,
    /// How our NAT maps.
    pub nat: NatView,
    /// Which relays see us otherwise than others, in words.
    pub contradiction: Option<String>,
}

/// The relay links of this gateway, in the policy's order.
pub type Links = Arc<Vec<(RelayId, LinkHandle)>>;

/// Into a path actor.
#[derive(Debug)]
pub enum PathCommand {
    /// A probe that carries one of the agent's session ids.
    Probe {
        /// Where it arrived.
        socket: LocalSocket,
        /// The address of ours at which it arrived, where that is known.
        local: Option<IpAddr>,
        /// Source address.
        from: SocketAddr,
        /// The datagram.
        packet: Vec<u8>,
    },
    /// Something that a relay handed us for the peer.
    Relay(RelayInbound),
    /// Probe everything now.
    Relook,
}

/// Why there is no tunnel to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelProblem {
    /// In words.
    pub text: String,
    /// The peer said nothing (any more). Else it answered, or the fault is ours.
    pub is_silence: bool,
}

/// One peer, shared by everything that concerns it.
#[derive(Debug)]
pub struct Peer {
    /// Its key.
    pub key: GatewayPublicKey,
    /// Whether it is this gateway itself.
    pub is_self: bool,
    name: Mutex<ServerName>,
    /// The tunnel in use.
    pub tunnel: watch::Sender<Option<Tunnel>>,
    /// End-to-end proof.
    pub proof: Proof,
    /// Whether some connection of the pair may carry data.
    pub wanted: watch::Sender<bool>,
    /// Whether a tunnel is being dialled and has no answer yet.
    pub dialling: watch::Sender<bool>,
    /// Whether streams are open; see [`Activity`].
    pub streams: watch::Sender<Activity>,
    /// Whether packets have some way to the peer.
    pub reachable: watch::Sender<bool>,
    /// The relay where it can be reached: as the policy says, or as it said itself since.
    pub home: watch::Sender<PeerHome>,
    path: Mutex<Option<PathSnapshot>>,
    /// Changes of the selected path since start, by reason.
    path_changes: Mutex<BTreeMap<PathReason, u64>>,
    /// Counts the same and the doubts between, for whoever must notice that packets take another way.
    pub path_epoch: Arc<AtomicU64>,
    /// Tells whoever waits that another path was selected.
    pub path_moved: Notify,
    /// Counts what relays hand us as the peer's own. Nobody has proved it, but it may be back.
    signs: watch::Sender<u64>,
    problem: Mutex<Option<TunnelProblem>>,
    commands: mpsc::Sender<PathCommand>,
    counters: Arc<SocketCounters>,
    changed: Arc<Notify>,
}

impl Peer {
    /// A peer and the mailbox of its path actor.
    ///
    /// `changed` is told when connectivity or the path changes; `counters` know what was dropped.
    pub fn new(
        key: GatewayPublicKey,
        is_self: bool,
        name: ServerName,
        changed: Arc<Notify>,
        counters: Arc<SocketCounters>,
    ) -> (Arc<Self>, mpsc::Receiver<PathCommand>) {
        let (commands, mailbox) = mpsc::channel(COMMANDS);
        let peer = Self {
            key,
            is_self,
            name: Mutex::new(name),
            tunnel: watch::Sender::new(None),
            proof: Proof::new(changed.clone()),
            changed,
            wanted: watch::Sender::new(false),
            dialling: watch::Sender::new(false),
            streams: watch::Sender::default(),
            reachable: watch::Sender::new(is_self),
            home: watch::Sender::default(),
            path: Mutex::new(None),
            path_changes: Mutex::default(),
            path_epoch: Arc::default(),
            path_moved: Notify::new(),
            signs: watch::Sender::new(0),
            problem: Mutex::new(None),
            commands,
            counters,
        };
        (Arc::new(peer), mailbox)
    }

    /// Its server, as the policy names it.
    pub fn name(&self) -> ServerName {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The policy renamed it.
    pub fn rename(&self, name: ServerName) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// The peer says in the tunnel that this is its home relay. What does not count is counted.
    pub(crate) fn hear_home(&self, relay: RelayId) {
        let mut outcome = HintOutcome::Known;
        self.home.send_if_modified(|home| {
            outcome = home.hear(relay, Instant::now());
            outcome == HintOutcome::Taken
        });
        match outcome {
            HintOutcome::Known => {}
            HintOutcome::Taken => {
                debug!(peer = %self.key.short(), %relay, "the peer says that its home relay is another");
            }
            HintOutcome::Ignored => {
                self.counters.home_hints_ignored.fetch_add(1, Relaxed);
                debug!(peer = %self.key.short(), %relay, "ignored as home: not in our map, or changed too often");
            }
        }
    }

    /// Hands a command to the path actor; dropped and counted when its mailbox is full. This gateway itself has none.
    pub fn command(&self, command: PathCommand) {
        if let Err(TrySendError::Full(_)) = self.commands.try_send(command) {
            self.counters.path_commands_dropped.fetch_add(1, Relaxed);
        }
    }

    /// The path agent's view, for status; `None` for this gateway itself.
    pub fn path(&self) -> Option<PathSnapshot> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The path agent's newest view.
    pub(crate) fn set_path(&self, path: PathSnapshot) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
    }

    /// Changes of the selected path since start, by reason.
    pub fn path_changes(&self) -> BTreeMap<PathReason, u64> {
        self.path_changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another path was selected.
    pub(crate) fn path_changed(&self, reason: PathReason) {
        *self.path_changes.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
        self.path_epoch.fetch_add(1, Relaxed);
        self.path_moved.notify_waiters();
        self.changed.notify_one();
    }

    /// Packets take another path beside the selected one.
    pub(crate) fn path_doubted(&self) {
        self.path_epoch.fetch_add(1, Relaxed);
    }

    /// Packets take another path beside the selected one, and none of a tunnel that is being dialled was answered: it is
    /// dialled anew rather than when its timer is up.
    pub(crate) fn handshake_doubted(&self) {
        if *self.dialling.borrow() {
            self.path_moved.notify_waiters();
        }
    }

    /// A relay handed us something as the peer's own: it may be back.
    pub(crate) fn shows_itself(&self) {
        self.signs.send_modify(|signs| *signs = signs.wrapping_add(1));
    }

    /// Changes whenever the peer [shows itself](Self::shows_itself).
    pub(crate) fn signs(&self) -> watch::Receiver<u64> {
        self.signs.subscribe()
    }

    /// A tunnel is being dialled for as long as the guard lives.
    pub(crate) fn dial_begins(self: &Arc<Self>) -> Dialling {
        self.dialling.send_replace(true);
        Dialling(self.clone())
    }

    /// Why there is no tunnel.
    pub fn problem(&self) -> Option<TunnelProblem> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers why there is no tunnel, or that there is one.
    pub fn set_problem(&self, problem: Option<TunnelProblem>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Counts a stream; the watchers learn only of the first.
    pub fn stream_opened(self: &Arc<Self>) -> PeerStream {
        self.streams.send_if_modified(|activity| {
            activity.open += 1;
            !std::mem::replace(&mut activity.is_active, true)
        });
        PeerStream(self.clone())
    }

    /// Somebody looked some time after the last stream: if none was opened meanwhile, the peer is at rest.
    pub(crate) fn look_for_rest(&self) {
        self.streams.send_if_modified(Activity::rests);
    }
}

/// Whether streams are open, or were until a moment ago. Where each message is a connection of its own, a stream that ends and
/// one that begins wake nobody: rest is found by whoever looks at the traffic ([`Peer::look_for_rest`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct Activity {
    open: u32,
    is_active: bool,
}

impl Activity {
    /// Whether questions are asked as while data moves.
    pub fn is_active(self) -> bool {
        self.is_active
    }

    fn rests(&mut self) -> bool {
        self.open == 0 && std::mem::take(&mut self.is_active)
    }
}

/// A tunnel is being dialled.
#[derive(Debug)]
pub(crate) struct Dialling(Arc<Peer>);

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.dialling.send_replace(false);
    }
}

/// An open stream of a peer.
#[derive(Debug)]
pub struct PeerStream(Arc<Peer>);

impl Drop for PeerStream {
    fn drop(&mut self) {
        // Nobody looks at the traffic of a tunnel to ourselves.
        let is_self = self.0.is_self;
        self.0.streams.send_if_modified(|activity| {
            activity.open -= 1;
            is_self && activity.rests()
        });
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::{
        id::{OrganizationId, ServerId},
        identity::GatewayKey,
    };

    use super::*;

    fn peer(is_self: bool) -> (Arc<Peer>, mpsc::Receiver<PathCommand>, Arc<SocketCounters>) {
        let name = ServerName {
            id: ServerId::new(1, [1; 10]),
            name: "south".into(),
            organization: OrganizationId::new(1, [1; 10]),
            organization_name: "South".into(),
        };
        let (key, counters) = (GatewayKey::from_seed(&[1; 32]).public(), Arc::<SocketCounters>::default());
        let (peer, mailbox) = Peer::new(key, is_self, name, Arc::default(), counters.clone());
        (peer, mailbox, counters)
    }

    #[test]
    fn a_connection_for_each_message_wakes_the_watchers_once_and_rest_is_found_by_looking() {
        let (peer, ..) = peer(false);
        let mut watched = peer.streams.subscribe();
        let mut woken = || {
            let changed = watched.has_changed().unwrap();
            (changed, watched.borrow_and_update().is_active())
        };
        drop(peer.stream_opened());
        assert_eq!(woken(), (true, true));
        for _ in 0..5 {
            let stream = peer.stream_opened();
            peer.look_for_rest();
            drop(stream);
        }
        assert_eq!(woken(), (false, true));
        peer.look_for_rest();
        assert_eq!(woken(), (true, false));
        peer.look_for_rest();
        assert_eq!(woken(), (false, false));
    }

    #[test]
    fn a_tunnel_to_ourselves_rests_with_its_last_stream_for_nobody_looks() {
        let (peer, ..) = peer(true);
        let (one, other) = (peer.stream_opened(), peer.stream_opened());
        drop(one);
        assert!(peer.streams.borrow().is_active());
        drop(other);
        assert!(!peer.streams.borrow().is_active());
    }

    #[test]
    fn what_finds_no_room_in_the_mailbox_of_the_path_actor_is_counted() {
        let (peer, mailbox, counters) = peer(false);
        for _ in 0..COMMANDS + 3 {
            peer.command(PathCommand::Relook);
        }
        assert_eq!(counters.path_commands_dropped.load(Relaxed), 3);
        drop(mailbox);
        peer.command(PathCommand::Relook);
        assert_eq!(counters.path_commands_dropped.load(Relaxed), 3, "an actor that has ended misses nothing");
    }
}
