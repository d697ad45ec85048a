//! The sockets of a run of port guessing: up to 256 for some seconds, then the one that was hit, or none.
//!
//! They belong to the path actor of one peer. Probes they receive go to that actor; QUIC goes to the tunnel stack like
//! everything else, under the peer's made-up address, and only when the peer authenticated the source. To IPv4 addresses only: no
//! other protocol has port-mapping NATs. Where a NAT64 is the only way to these, they send IPv6.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use gateway_net::{nat64, udp::mapped};
use gateway_proto::path::{LocalSocket, PacketClass, classify, normalize};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tracing::debug;

use crate::{
    path_actor::SessionIndex,
    peer::{PathCommand, Peer},
    socket::Injector,
};

/// Runs with many sockets at a time in this daemon; each holds 256 file descriptors.
pub const RUNS_AT_A_TIME: usize = 4;

/// The longest batch that the kernel hands out at once.
const RECEIVE_BUFFER: usize = 64 << 10;

/// One socket besides the main one.
pub struct SideSocket {
    io: UdpSocket,
    state: UdpSocketState,
    /// For both families.
    is_v6: bool,
}

impl fmt::Debug for SideSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SideSocket")
    }
}

impl SideSocket {
    fn bind() -> io::Result<Self> {
        let is_v6 = nat64::is_known();
        let any: IpAddr = if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { io: UdpSocket::from_std(socket)?, state, is_v6 })
    }

    /// Sends a batch, or loses it when the kernel's buffer is full: whoever sent it sends again.
    pub fn send(&self, transmit: &Transmit<'_>) {
        let Transmit { destination: to, ecn, contents, segment_size, .. } = *transmit;
        let send = |destination| {
            let transmit = Transmit { destination, ecn, contents, segment_size, src_ip: None };
            self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), &transmit))
        };
        let _ = if self.is_v6 { nat64::send(to, Some(mapped(to)), send) } else { send(to) };
    }

    fn send_probe(&self, to: SocketAddr, packet: &[u8]) {
        self.send(&Transmit { destination: to, ecn: None, contents: packet, segment_size: None, src_ip: None });
    }

    async fn receive(
        &self,
        number: LocalSocket,
        peer: &Peer,
        sessions: &SessionIndex,
        injector: &Injector,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            self.io.readable().await?;
            buffer.resize(RECEIVE_BUFFER, 0);
            let mut meta = [RecvMeta::default()];
            let received = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), &mut [IoSliceMut::new(&mut buffer)], &mut meta)
            });
            match received {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset) => {
                    continue;
                }
                Err(error) => return Err(error),
            }
            let (from, stride) = (nat64::plain(normalize(meta[0].addr)), meta[0].stride.max(1));
            for packet in buffer[..meta[0].len].chunks(stride) {
                match classify(packet) {
                    // The port is open to everybody, and signals use this mailbox too: what no path agent can have asked for takes
                    // no place in it.
                    PacketClass::Probe if !sessions.knows(packet) => injector.count_stranger(),
                    PacketClass::Probe => {
                        let packet = packet.to_vec();
                        peer.command(PathCommand::Probe { socket: number, local: None, from, packet });
                    }
                    PacketClass::Quic => injector.direct(from, packet),
                    PacketClass::Stun | PacketClass::Unknown => {}
                }
            }
        }
    }
}

/// The side sockets of one path actor; dropping it closes them.
#[derive(Debug)]
pub struct SideSockets {
    runs: Arc<Semaphore>,
    open: BTreeMap<LocalSocket, (Arc<SideSocket>, tokio::task::AbortHandle)>,
    readers: JoinSet<()>,
    /// Held while many are open.
    run: Option<OwnedSemaphorePermit>,
}

impl SideSockets {
    /// None open; `runs` is shared by all path actors.
    pub fn new(runs: Arc<Semaphore>) -> Self {
        Self { runs, open: BTreeMap::new(), readers: JoinSet::new(), run: None }
    }

    /// Opens the sockets 1 to `count`; none while too many runs are under way, fewer when file descriptors run out.
    pub fn open(&mut self, count: u16, peer: &Arc<Peer>, sessions: &SessionIndex, injector: &Injector) {
        self.close(None);
        let Ok(permit) = self.runs.clone().try_acquire_owned() else { return };
        self.run = Some(permit);
        for number in (1..=count).map(LocalSocket) {
            let socket = match SideSocket::bind() {
                Ok(socket) => Arc::new(socket),
                Err(error) => {
                    debug!(%error, opened = self.open.len(), "no more sockets for port guessing");
                    return;
                }
            };
            let (reading, peer, sessions, injector) =
                (socket.clone(), peer.clone(), sessions.clone(), injector.clone());
            let reader = self.readers.spawn(async move {
                if let Err(error) = reading.receive(number, &peer, &sessions, &injector).await {
                    debug!(%error, "a socket of port guessing failed");
                }
            });
            self.open.insert(number, (socket, reader));
        }
    }

    /// Closes all but one.
    pub fn close(&mut self, keep: Option<LocalSocket>) {
        self.run = None;
        self.open.retain(|number, (_, reader)| {
            let kept = Some(*number) == keep;
            if !kept {
                reader.abort();
            }
            kept
        });
        while self.readers.try_join_next().is_some() {}
    }

    /// The socket of that number, while it is open.
    pub fn get(&self, number: LocalSocket) -> Option<Arc<SideSocket>> {
        self.open.get(&number).map(|(socket, _)| socket.clone())
    }

    /// Sends a probe from it.
    pub fn send_probe(&self, number: LocalSocket, to: SocketAddr, packet: &[u8]) {
        if let Some((socket, _)) = self.open.get(&number) {
            socket.send_probe(to, packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway_proto::{
        id::{OrganizationId, ServerId},
        identity::GatewayKey,
        policy::ServerName,
    };
    use tokio::time::timeout;

    use super::*;
    use crate::{routes::Routes, socket::TunnelSocket};

    const LIMIT: Duration = Duration::from_secs(20);

    /// A packet that has the form of a probe.
    fn probe(session: [u8; 8]) -> Vec<u8> {
        let mut packet = vec![0; 1200];
        packet[..4].copy_from_slice(b" GW\x01");
        packet[4..12].copy_from_slice(&session);
        packet
    }

    #[tokio::test]
    async fn probes_of_strangers_take_no_place_in_the_mailbox_of_the_path_actor() {
        let key = GatewayKey::from_seed(&[1; 32]).public();
        let name = ServerName {
            id: ServerId::new(1, [1; 10]),
            name: "south".into(),
            organization: OrganizationId::new(1, [1; 10]),
            organization_name: "South".into(),
        };
        let (peer, mut mailbox) = Peer::new(key, false, name, Arc::default(), Arc::default());
        let sessions = SessionIndex::default();
        sessions.replace(key, &[], &[[7; 8]]);
        let bind = ["127.0.0.1:0".parse::<SocketAddr>().unwrap()];
        let (main, _) = TunnelSocket::bind(bind.into_iter(), Arc::<Routes>::default(), sessions.clone()).unwrap();
        let mut side = SideSockets::new(Arc::new(Semaphore::new(1)));
        side.open(1, &peer, &sessions, &main.injector());
        let port = side.get(LocalSocket(1)).unwrap().io.local_addr().unwrap().port();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // One after the other, so that none is lost before it is read.
        for seen in 1..=300 {
            stranger.send_to(&probe([9; 8]), ("127.0.0.1", port)).await.unwrap();
            let counted = async {
                while main.counters().strangers.load(std::sync::atomic::Ordering::Relaxed) < seen {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, counted).await.unwrap();
        }
        assert!(mailbox.try_recv().is_err());
        stranger.send_to(&probe([7; 8]), ("127.0.0.1", port)).await.unwrap();
        let known = timeout(LIMIT, mailbox.recv()).await.unwrap().unwrap();
        assert!(matches!(known, PathCommand::Probe { socket: LocalSocket(1), .. }));
    }
}
