//! The one UDP socket under QUIC: direct packets, relayed packets, probes and STUN meet here, and part here.
//!
//! Outbound, a packet for a peer's made-up address goes to its route: the real address of a direct path, the relay
//! (over UDP or its WebSocket), or both while the direct path is in doubt. Inbound, packets are told apart by their first byte; QUIC from an
//! address that a peer authenticated is handed to quinn under that peer's made-up address, QUIC from anywhere else is
//! dropped and counted, so a stranger never reaches the QUIC stack. Batches (GSO, GRO) stay batches in all directions, and full
//! ones are joined (`trains`).

mod binding;
mod inbound;
mod outbound;
mod quic;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use binding::Binding;
use futures_util::task::AtomicWaker;
use gateway_net::nat64;
use gateway_proto::{api::local::SocketStatus, netcheck::SocketProblem, path::PacketClass};
pub use inbound::{Injected, Injector};
use quic::Outgoing;
use tokio::sync::mpsc;

use crate::{path_actor::SessionIndex, relay_udp::UdpLegs, routes::Routes};

/// Packets that wait for quinn when they come from a relay or from ourselves; above that they are dropped and counted.
const INJECTED_QUEUE: usize = 1024;
/// Probes and STUN answers that wait for the path agents.
const PROBE_QUEUE: usize = 512;

/// A probe or a STUN answer, with its real source.
#[derive(Debug)]
pub struct PathPacket {
    /// Source, normalised.
    pub from: SocketAddr,
    /// The address of ours at which it came; `None`: there is only one, or it came over a relay.
    pub local: Option<IpAddr>,
    /// Whether it is STUN or a probe.
    pub class: PacketClass,
    /// The datagram.
    pub packet: Vec<u8>,
}

/// What the socket dropped and moved; read by the metrics.
#[derive(Debug, Default)]
pub struct SocketCounters {
    /// QUIC packets from addresses nobody authenticated, and probes of no session.
    pub strangers: AtomicU64,
    /// Packets of no known kind.
    pub unknown: AtomicU64,
    /// Batches dropped because a relay link's queue was full or down.
    pub relay_dropped: AtomicU64,
    /// Batches for a peer without any path.
    pub unroutable: AtomicU64,
    /// Relayed batches dropped because quinn did not keep up.
    pub injected_dropped: AtomicU64,
    /// Probes dropped because the path agents did not keep up.
    pub probes_dropped: AtomicU64,
    /// STUN answers dropped because the gatherer of our addresses did not keep up.
    pub stun_dropped: AtomicU64,
    /// Probes, signals and hints dropped because the path agent of their peer did not keep up.
    pub path_commands_dropped: AtomicU64,
    /// Signals and hints dropped because the relay that brought them sent too many.
    pub relay_inbound_dropped: AtomicU64,
    /// Home relays that peers said and that do not count: in no map of ours, or another one too often.
    pub home_hints_ignored: AtomicU64,
    /// Datagrams sent on direct paths.
    pub direct_batches: AtomicU64,
    /// Batches handed to relay links.
    pub relayed_batches: AtomicU64,
    /// Batches sent to relays over UDP.
    pub relayed_udp_batches: AtomicU64,
    /// Batches that went over a second relay too, while the first was in doubt.
    pub spared_batches: AtomicU64,
    /// Times a relay lost too much of what went over it to a peer.
    pub lossy_relays: AtomicU64,
    /// Datagrams from relays over UDP that were no session's, no peer's or no QUIC.
    pub relayed_refused: AtomicU64,
    /// Times the kernel's socket was opened anew.
    pub reopened: AtomicU64,
    /// Times the name servers were asked for a STUN server.
    pub name_lookups: AtomicU64,
    /// Names whose addresses were forgotten, because there was no room for so many.
    pub names_evicted: AtomicU64,
}

/// The kernel's defaults for both protocols; `None`: not known, and then never changed.
#[derive(Debug, Clone, Copy)]
struct Hops {
    v4: Option<u32>,
    v6: Option<u32>,
}

/// The socket. Shared by quinn (as [`quinn::AsyncUdpSocket`]), the path agents and the relay links.
pub struct TunnelSocket {
    io: Binding,
    /// Why the kernel's socket carries nothing, if that is known.
    problem: Mutex<Option<SocketProblem>>,
    /// Hops a packet may make by the kernel's default.
    hops: Hops,
    routes: Arc<Routes>,
    sessions: SessionIndex,
    injected: Mutex<mpsc::Receiver<Injected>>,
    inject: mpsc::Sender<Injected>,
    probes: mpsc::Sender<PathPacket>,
    legs: UdpLegs,
    trains: Mutex<Outgoing>,
    /// The task that receives; it also sends what is held.
    receiver: AtomicWaker,
    counters: Arc<SocketCounters>,
}

impl fmt::Debug for TunnelSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelSocket").field("local", &self.io.local()).finish_non_exhaustive()
    }
}

impl TunnelSocket {
    /// Binds the first address that can be bound; an unspecified IPv6 address takes IPv4 too. Returns the socket and
    /// the queue of probes and STUN answers.
    pub fn bind(
        addresses: impl Iterator<Item = SocketAddr>,
        routes: Arc<Routes>,
        sessions: SessionIndex,
    ) -> io::Result<(Arc<Self>, mpsc::Receiver<PathPacket>)> {
        let mut bound = Err(io::ErrorKind::InvalidInput.into());
        for address in addresses {
            bound = Binding::open(address);
            if bound.is_ok() {
                break;
            }
        }
        let io = bound?;
        let hops = io.with_options(|options| Hops { v4: options.ttl_v4().ok(), v6: options.unicast_hops_v6().ok() });
        let hops = hops.unwrap_or(Hops { v4: None, v6: None });
        let (inject, injected) = mpsc::channel(INJECTED_QUEUE);
        let (probes, probes_rx) = mpsc::channel(PROBE_QUEUE);
        let socket = Self {
            io,
            problem: Mutex::default(),
            hops,
            routes,
            sessions,
            injected: Mutex::new(injected),
            inject,
            probes,
            legs: UdpLegs::default(),
            trains: Mutex::default(),
            receiver: AtomicWaker::new(),
            counters: Arc::default(),
        };
        Ok((Arc::new(socket), probes_rx))
    }

    /// What was dropped and moved.
    pub fn counters(&self) -> &Arc<SocketCounters> {
        &self.counters
    }

    /// The port peers and NATs see packets come from.
    pub fn local_port(&self) -> u16 {
        self.io.local().port()
    }

    /// The one address it is bound to; none: it takes every address.
    pub fn pinned(&self) -> Option<IpAddr> {
        Some(self.io.local().ip()).filter(|ip| !ip.is_unspecified())
    }

    /// Whether what is sent to this address of ours arrives here.
    pub fn takes(&self, own: IpAddr) -> bool {
        match self.pinned() {
            Some(pinned) => pinned == own,
            None => own.is_ipv4() || self.io.local().is_ipv6(),
        }
    }

    /// Whether packets can go to addresses of this family, if need be through the NAT64 of the network.
    pub fn reaches(&self, to: &SocketAddr) -> bool {
        self.real(*to).is_some() || self.io.local().is_ipv6() && nat64::translated(*to).is_some()
    }

    /// Whether the kernel's socket stands and does all that it could at first.
    pub fn is_sound(&self) -> bool {
        self.io.is_sound()
    }

    /// Opens the kernel's socket anew, at the same address and port. When that fails it is closed, and everything goes
    /// over relays.
    pub fn reopen(&self) -> io::Result<()> {
        let opened = self.io.reopen();
        self.set_problem(
            opened
                .as_ref()
                .err()
                .map(|error| SocketProblem::NotOpened { address: self.io.local(), problem: error.to_string() }),
        );
        if opened.is_ok() {
            self.counters.reopened.fetch_add(1, Relaxed);
        }
        // Whoever receives waits for the former one.
        self.receiver.wake();
        opened
    }

    /// Why the kernel's socket carries nothing, as far as that is known; for people.
    pub fn set_problem(&self, problem: Option<SocketProblem>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// How it stands.
    pub fn status(&self) -> SocketStatus {
        let problem = self.problem();
        SocketStatus {
            address: self.io.local(),
            reopened: self.counters.reopened.load(Relaxed),
            problem: problem.map(|problem| problem.to_string()),
        }
    }

    /// Why it carries nothing.
    pub fn problem(&self) -> Option<SocketProblem> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where relay links put what they receive.
    pub fn injector(&self) -> Injector {
        Injector { queue: self.inject.clone(), routes: self.routes.clone(), counters: self.counters.clone() }
    }

    /// The legs of relay links over UDP.
    pub(crate) fn legs(&self) -> &UdpLegs {
        &self.legs
    }
}
