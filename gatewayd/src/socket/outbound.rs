//! What goes out: batches of QUIC on the route of their peer, probes and STUN to real addresses.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::atomic::Ordering::Relaxed,
};

use bytes::Bytes;
use gateway_net::nat64;
use gateway_proto::path::normalize;
use quinn_udp::Transmit;

use super::{Injected, TunnelSocket};
use crate::{
    relay_udp::OverUdp,
    routes::{Arrivals, Route},
};

impl TunnelSocket {
    /// Sends a probe or a STUN request to a real address. Probes are never worth waiting for: a full kernel buffer or
    /// an unreachable network loses the packet, and the path agent's schedule sends the next.
    pub fn send_probe(&self, to: SocketAddr, packet: &[u8]) {
        self.send_probe_from(None, to, packet);
    }

    /// Sends a probe by that address of ours; it is lost when that is gone, as one that left by another would prove nothing.
    pub fn send_probe_from(&self, local: Option<IpAddr>, to: SocketAddr, packet: &[u8]) {
        let _ = self.through(local, to, |destination| self.io.try_send(&single_from(local, destination, packet)));
    }

    /// Sends a probe that shall open our own NAT and die on the way. Not sent where the kernel does not let us: one that
    /// arrives would do what it is meant to avoid.
    pub fn send_short_lived(&self, local: Option<IpAddr>, to: SocketAddr, ttl: u8, packet: &[u8]) {
        let _ = self.through(local, to, |destination| {
            // What the kernel sends as IPv4 has the limit of IPv4, whatever the form of the address.
            let is_v4 = normalize(destination).is_ipv4();
            // All of the daemon runs on one thread: no other packet leaves before the limit is back.
            let limit = |hops: u32| {
                let set = self.io.with_options(|options| {
                    if is_v4 { options.set_ttl_v4(hops) } else { options.set_unicast_hops_v6(hops) }
                });
                set.is_some_and(|set| set.is_ok())
            };
            let usual = if is_v4 { self.hops.v4 } else { self.hops.v6 };
            let Some(usual) = usual.filter(|_| limit(ttl.into())) else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let sent = self.io.try_send(&single_from(local, destination, packet));
            // It was set a moment ago, so it can be set again.
            limit(usual);
            sent
        });
    }

    /// Sends to a real address by `send`: as it is or, where this machine has no way to an IPv4 address, through the NAT64 of its
    /// network. What leaves by an address of ours takes no other way.
    fn through(
        &self,
        local: Option<IpAddr>,
        to: SocketAddr,
        send: impl FnMut(SocketAddr) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.io.local() {
            SocketAddr::V6(_) if local.is_none() => nat64::send(to, self.real(to), send),
            SocketAddr::V4(_) | SocketAddr::V6(_) => self.real(to).map_or(Ok(()), send),
        }
    }

    /// Sends a batch to a real address. Only a full buffer is an error; what the network refuses is lost, as any packet may be.
    fn send_batch(&self, to: SocketAddr, transmit: &Transmit<'_>) -> io::Result<()> {
        let addressed = |destination| Transmit { destination, ..borrowed(transmit) };
        if to.is_ipv6() || transmit.src_ip.is_some() || !nat64::is_known() {
            return self.real(to).map_or(Ok(()), |destination| self.io.send(&addressed(destination)));
        }
        match self.through(None, to, |destination| self.io.try_send(&addressed(destination))) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }

    /// The form of a real address that this socket's family can send to.
    pub(super) fn real(&self, to: SocketAddr) -> Option<SocketAddr> {
        match (to, self.io.local().ip()) {
            (SocketAddr::V4(_), IpAddr::V4(_)) | (SocketAddr::V6(_), IpAddr::V6(_)) => Some(to),
            // One that is bound to an IPv6 address of its own has no IPv4.
            (SocketAddr::V4(v4), IpAddr::V6(local)) if local.is_unspecified() => {
                Some(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into())
            }
            (SocketAddr::V4(_), IpAddr::V6(_)) | (SocketAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// Sends a batch of QUIC on a route.
    fn send_on(&self, route: &Route, arrivals: &Arrivals, transmit: &Transmit<'_>) -> io::Result<()> {
        if route.local {
            let batch = Injected {
                source: transmit.destination,
                payload: Bytes::copy_from_slice(transmit.contents),
                segment_size: transmit.segment_size.unwrap_or(0),
            };
            if self.inject.try_send(batch).is_err() {
                self.counters.injected_dropped.fetch_add(1, Relaxed);
            }
            return Ok(());
        }
        if let Some(direct) = route.direct {
            match &route.side {
                Some(side) => {
                    self.counters.direct_batches.fetch_add(1, Relaxed);
                    side.send(&Transmit { destination: direct, src_ip: None, ..borrowed(transmit) });
                }
                None => self.send_direct(direct, &Transmit { src_ip: route.source, ..borrowed(transmit) })?,
            }
            if !route.duplicate {
                return Ok(());
            }
        }
        for spare in &route.spares {
            let over_udp = spare.over_udp(transmit.contents, transmit.segment_size, |to, train, segment| {
                self.send_train(to, train, segment)
            });
            // A second copy is not worth waiting for.
            if !matches!(over_udp, OverUdp::Sent(Ok(()))) {
                spare.send(transmit.contents, transmit.segment_size);
            }
            self.counters.spared_batches.fetch_add(1, Relaxed);
        }
        match &route.relay {
            Some(relay) => {
                let over_udp = relay.over_udp(transmit.contents, transmit.segment_size, |to, train, segment| {
                    self.send_train(to, train, segment)
                });
                let may_arrive = matches!(over_udp, OverUdp::Doubtful) || route.direct.is_some();
                match over_udp {
                    OverUdp::Sent(sent) => {
                        self.counters.relayed_udp_batches.fetch_add(1, Relaxed);
                        // A duplicate is not worth sending the original again.
                        return if route.direct.is_some() { Ok(()) } else { sent };
                    }
                    OverUdp::Doubtful => {
                        self.counters.relayed_udp_batches.fetch_add(1, Relaxed);
                    }
                    OverUdp::No => {}
                }
                let sent = relay.send(transmit.contents, transmit.segment_size);
                let counter = if sent { &self.counters.relayed_batches } else { &self.counters.relay_dropped };
                counter.fetch_add(1, Relaxed);
                if !sent && !may_arrive {
                    arrivals.keep_back(packets(transmit));
                }
            }
            None if route.direct.is_none() => {
                self.counters.unroutable.fetch_add(1, Relaxed);
            }
            None => {}
        }
        Ok(())
    }

    /// Sends a batch to a peer's made-up address.
    pub(super) fn send_routed(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let send = |route: &Route, arrivals: &Arrivals| self.send_on(route, arrivals, transmit);
        let sent = self.routes.with(&transmit.destination, send);
        sent.unwrap_or_else(|| {
            self.counters.unroutable.fetch_add(1, Relaxed);
            Ok(())
        })
    }

    fn send_direct(&self, to: SocketAddr, transmit: &Transmit<'_>) -> io::Result<()> {
        self.counters.direct_batches.fetch_add(1, Relaxed);
        self.send_batch(to, transmit)
    }

    /// Sends a train to a relay.
    fn send_train(&self, to: SocketAddr, train: &[u8], segment: usize) -> io::Result<()> {
        let segment_size = (train.len() > segment).then_some(segment);
        self.send_batch(to, &Transmit { segment_size, ..single(to, train) })
    }
}

/// One datagram.
fn single(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
    Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
}

/// One datagram that leaves by an address of ours.
fn single_from(local: Option<IpAddr>, destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
    Transmit { src_ip: local, ..single(destination, contents) }
}

/// How many packets of QUIC a batch has.
fn packets(transmit: &Transmit<'_>) -> u64 {
    let each = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
    u64::try_from(transmit.contents.len().div_ceil(each)).unwrap_or(u64::MAX)
}

fn borrowed<'a>(transmit: &Transmit<'a>) -> Transmit<'a> {
    Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn,
        contents: transmit.contents,
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::IoSliceMut, sync::Arc, time::Duration};

    use gateway_proto::identity::GatewayKey;
    use quinn::AsyncUdpSocket;
    use quinn_udp::RecvMeta;
    use tokio::{net::UdpSocket, sync::mpsc, time::timeout};

    use super::*;
    use crate::{
        path_actor::SessionIndex,
        routes::{Routes, peer_address},
        socket::PathPacket,
    };

    const LIMIT: Duration = Duration::from_secs(20);

    /// The next probe that the socket sorts out.
    async fn probe_of(socket: &TunnelSocket, probes: &mut mpsc::Receiver<PathPacket>) -> PathPacket {
        let (mut memory, mut metas) = (vec![0; 1 << 16], [RecvMeta::default()]);
        let receiving = poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut memory)], &mut metas));
        timeout(LIMIT, receiving).await.unwrap().unwrap();
        probes.try_recv().unwrap()
    }

    async fn source_of_next(peer: &UdpSocket) -> SocketAddr {
        timeout(LIMIT, peer.recv_from(&mut [0; 2_000])).await.unwrap().unwrap().1
    }

    #[tokio::test]
    async fn what_is_asked_at_a_second_address_is_answered_from_there_and_so_goes_the_data() {
        for listen in ["[::]:0", "0.0.0.0:0"] {
            let addresses = [listen, "0.0.0.0:0"].map(|address| address.parse().unwrap());
            let (routes, sessions) = (Arc::<Routes>::default(), SessionIndex::default());
            let key = GatewayKey::from_seed(&[1; 32]).public();
            sessions.replace(key, &[], &[[7; 8]]);
            let bound = TunnelSocket::bind(addresses.into_iter(), routes.clone(), sessions);
            let (socket, mut probes) = bound.unwrap();
            let second = SocketAddr::from(([127, 0, 0, 2], socket.local_port()));
            let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut probe = vec![0; 1_200];
            probe[..4].copy_from_slice(b" GW\x01");
            probe[4..12].copy_from_slice(&[7; 8]);
            peer.send_to(&probe, second).await.unwrap();
            let arrived = probe_of(&socket, &mut probes).await;
            assert_eq!((arrived.from, arrived.local), (peer.local_addr().unwrap(), Some(second.ip())));
            socket.send_probe_from(arrived.local, arrived.from, &probe);
            assert_eq!(source_of_next(&peer).await, second);
            socket.send_probe(arrived.from, &probe);
            assert_eq!(source_of_next(&peer).await.ip(), arrived.from.ip(), "the kernel's choice");
            let _arrivals = routes.meet(key, true);
            let batch = Transmit {
                destination: peer_address(&key.into()),
                ecn: None,
                contents: &[0x41; 1_000],
                segment_size: Some(400),
                src_ip: None,
            };
            for (source, seen) in [(arrived.local, second.ip()), (None, arrived.from.ip())] {
                routes.set(key, Route { direct: Some(arrived.from), source, ..Route::NONE });
                socket.try_send(&batch).unwrap();
                for _ in 0..3 {
                    assert_eq!(source_of_next(&peer).await.ip(), seen);
                }
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_is_gone_loses_its_probes_and_nothing_else() {
        let addresses = ["0.0.0.0:0".parse().unwrap()];
        let bound = TunnelSocket::bind(addresses.into_iter(), Arc::default(), SessionIndex::default());
        let (socket, _probes) = bound.unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = peer.local_addr().unwrap();
        // An address of documentation: no machine has it.
        let gone = Some("203.0.113.77".parse().unwrap());
        socket.send_probe_from(gone, to, b"by what is gone");
        let lost = Transmit { src_ip: gone, ..single(to, b"data") };
        socket.send_batch(to, &lost).unwrap();
        socket.send_probe(to, b"next");
        let mut buffer = [0; 16];
        for expected in [b"data", b"next"] {
            let length = timeout(LIMIT, peer.recv(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(&buffer[..length], expected, "the probe proves no path, and data may find one");
        }
        assert!(socket.is_sound());
    }

    #[tokio::test]
    async fn a_short_lived_probe_leaves_the_usual_hop_limit_behind() {
        for listen in ["[::]:0", "0.0.0.0:0"] {
            let addresses = [listen, "0.0.0.0:0"].map(|address| address.parse().unwrap());
            let bound = TunnelSocket::bind(addresses.into_iter(), Arc::default(), SessionIndex::default());
            let (socket, _probes) = bound.unwrap();
            let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            assert!(socket.hops.v4.is_some(), "the kernel tells its limit");
            socket.send_short_lived(None, receiver.local_addr().unwrap(), 4, b"probe");
            let mut buffer = [0; 16];
            assert_eq!(receiver.recv(&mut buffer).await.unwrap(), 5, "loopback is no hop");
            assert_eq!(socket.io.with_options(|options| options.ttl_v4().ok()).flatten(), socket.hops.v4);
        }
    }
}
