//! What everybody may know of a peer.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gateway_proto::{
    id::RelayId,
    identity::GatewayPublicKey,
    path::{Candidate, LocalSocket, NatView, PathReason, PathSnapshot},
    policy::ServerName,
};
use tokio::sync::{Notify, mpsc, watch};

use crate::{proof::Proof, relay_link::LinkHandle, tunnel::Tunnel};

/// Commands that wait for a path actor; a peer or stranger that sends faster loses probes, not ours.
const COMMANDS: usize = 128;

/// Our own addresses, as gathered last.
#[derive(Debug, Clone, Default)]
pub struct LocalCandidates {
    /// Host and server-reflexive candidates.
    pub candidates: Vec<Candidate>,
    /// How our NAT maps.
    pub nat: NatView,
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
        /// Source address.
        from: SocketAddr,
        /// The datagram.
        packet: Vec<u8>,
    },
    /// A sealed signal.
    Signal(Vec<u8>),
    /// This relay does not see the peer.
    Absent(RelayId),
    /// The peer's packets come over the relay although a direct path is selected.
    Doubt,
    /// The peer's packets come over another relay than before, this one; or over the usual one again.
    HeardOver(RelayId),
    /// Probe everything now.
    Relook,
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
    /// Open streams; watchers are told when it becomes zero or leaves it.
    pub streams: watch::Sender<u32>,
    /// Whether packets have some way to the peer.
    pub reachable: watch::Sender<bool>,
    path: Mutex<Option<PathSnapshot>>,
    /// Changes of the selected path since start, by reason.
    path_changes: Mutex<BTreeMap<PathReason, u64>>,
    /// Counts the same and the doubts between, for whoever must notice that packets take another way.
    pub path_epoch: Arc<AtomicU64>,
    /// Tells whoever waits that another path was selected.
    pub path_moved: Notify,
    problem: Mutex<Option<String>>,
    commands: mpsc::Sender<PathCommand>,
    changed: Arc<Notify>,
}

impl Peer {
    /// A peer and the mailbox of its path actor.
    ///
    /// `changed` is told when connectivity or the path changes.
    pub fn new(
        key: GatewayPublicKey,
        is_self: bool,
        name: ServerName,
        changed: Arc<Notify>,
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
            streams: watch::Sender::new(0),
            reachable: watch::Sender::new(is_self),
            path: Mutex::new(None),
            path_changes: Mutex::default(),
            path_epoch: Arc::default(),
            path_moved: Notify::new(),
            problem: Mutex::new(None),
            commands,
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

    /// Hands a command to the path actor; dropped when its mailbox is full.
    pub fn command(&self, command: PathCommand) {
        let _ = self.commands.try_send(command);
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

    /// A tunnel is being dialled for as long as the guard lives.
    pub(crate) fn dial_begins(self: &Arc<Self>) -> Dialling {
        self.dialling.send_replace(true);
        Dialling(self.clone())
    }

    /// Why there is no tunnel, in words.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers why there is no tunnel, or that there is one.
    pub fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Counts a stream; the watchers learn only of the first.
    pub fn stream_opened(self: &Arc<Self>) -> PeerStream {
        self.streams.send_if_modified(|open| {
            *open += 1;
            *open == 1
        });
        PeerStream(self.clone())
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
        self.0.streams.send_if_modified(|open| {
            *open -= 1;
            *open == 0
        });
    }
}
