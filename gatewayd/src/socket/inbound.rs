//! What comes in: from the network, from relay links, and from ourselves.

use std::{
    io::IoSliceMut,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use gateway_net::nat64;
use gateway_proto::{
    id::RelayId,
    path::{PacketClass, classify, normalize},
    relay::udp::{OVERHEAD, is_relayed},
};
use quinn_udp::RecvMeta;
use tokio::sync::mpsc;

use super::{PathPacket, SocketCounters, TunnelSocket};
use crate::{relay_udp::UdpLeg, routes::Routes};

/// A batch that did not come from the network socket: relayed, or from ourselves to ourselves.
#[derive(Debug)]
pub struct Injected {
    /// Made-up address of the peer.
    pub source: SocketAddr,
    /// One or more datagrams, all but the last of `segment_size` bytes.
    pub payload: Bytes,
    /// Size of one datagram, 0 for a single one.
    pub segment_size: usize,
}

impl TunnelSocket {
    /// Hands out relayed and local packets; `None` when there are none (and the task is registered to be woken).
    pub(super) fn poll_injected(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Option<usize> {
        let mut queue = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        while count < bufs.len().min(meta.len()) {
            let Poll::Ready(Some(batch)) = queue.poll_recv(cx) else { break };
            let length = batch.payload.len();
            if length > bufs[count].len() {
                self.counters.injected_dropped.fetch_add(1, Relaxed);
                continue;
            }
            bufs[count][..length].copy_from_slice(&batch.payload);
            meta[count] = RecvMeta {
                addr: batch.source,
                len: length,
                stride: if batch.segment_size == 0 { length } else { batch.segment_size },
                ecn: None,
                dst_ip: None,
            };
            count += 1;
        }
        (count > 0).then_some(count)
    }

    /// Rewrites one received batch: what is QUIC of a known peer stays, under that peer's made-up address; the rest is
    /// taken out (probes and STUN go to the path agents, strangers are counted).
    pub(super) fn sort(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let outer = normalize(meta.addr);
        // Everything above knows an IPv4 host by its own address. What was met before the NAT64 was known has that of the translator.
        let from = nat64::plain(outer);
        // A pinned socket has one address, from which it sends anyway. QUIC sees made-up addresses only.
        let local = meta.dst_ip.take().map(|ip| ip.to_canonical()).filter(|_| self.pinned().is_none());
        let stride = meta.stride.max(1);
        if buffer.first().is_some_and(|first| is_relayed(*first))
            && let Some(leg) = self.legs.find(&from).or_else(|| self.legs.find(&outer))
        {
            return self.unpack(&leg, from, buffer, meta);
        }
        let owner = self.routes.owner(&from).or_else(|| self.routes.owner(&outer));
        let mut kept = 0;
        let mut at = 0;
        while at < meta.len {
            let end = (at + stride).min(meta.len);
            let class = classify(&buffer[at..end]);
            match (class, owner) {
                (PacketClass::Quic, Some(_)) => {
                    if kept != at {
                        buffer.copy_within(at..end, kept);
                    }
                    kept += end - at;
                }
                (PacketClass::Quic, None) => {
                    self.counters.strangers.fetch_add(1, Relaxed);
                }
                (PacketClass::Stun | PacketClass::Probe | PacketClass::Unknown, _) => {
                    self.for_the_agents(from, local, class, &buffer[at..end]);
                }
            }
            at = end;
        }
        meta.len = kept;
        if let Some(owner) = owner {
            meta.addr = owner;
        }
    }

    /// A packet that is not QUIC, of a peer or a STUN server. What no path agent can have asked for takes no place in the queue.
    fn for_the_agents(&self, from: SocketAddr, local: Option<IpAddr>, class: PacketClass, packet: &[u8]) {
        match class {
            PacketClass::Probe if !self.sessions.knows(packet) => {
                self.counters.strangers.fetch_add(1, Relaxed);
            }
            PacketClass::Stun | PacketClass::Probe => {
                let packet = PathPacket { from, local, class, packet: packet.to_vec() };
                if self.probes.try_send(packet).is_err() {
                    self.counters.probes_dropped.fetch_add(1, Relaxed);
                }
            }
            PacketClass::Quic | PacketClass::Unknown => {
                self.counters.unknown.fetch_add(1, Relaxed);
            }
        }
    }

    /// Takes the relay's headers out of a train: the datagrams of one peer stay, those of others are queued.
    fn unpack(&self, leg: &UdpLeg, from: SocketAddr, buffer: &mut [u8], meta: &mut RecvMeta) {
        let now = Instant::now();
        let unpacked = leg.receive(&mut buffer[..meta.len], meta.stride.max(1), now);
        self.counters.relayed_refused.fetch_add(unpacked.refused, Relaxed);
        for packet in &unpacked.bare {
            self.for_the_agents(from, None, classify(packet), packet);
        }
        meta.len = 0;
        meta.stride = meta.stride.saturating_sub(OVERHEAD);
        for (source, payload) in unpacked.others {
            let batch = Injected { source, payload: payload.into(), segment_size: meta.stride };
            if !self.routes.is_known_at(&source, leg.relay(), now) || self.inject.try_send(batch).is_err() {
                self.counters.injected_dropped.fetch_add(1, Relaxed);
            }
        }
        let Some((source, _)) = unpacked.source else { return };
        if !self.routes.is_known_at(&source, leg.relay(), now) {
            self.counters.strangers.fetch_add(1, Relaxed);
            return;
        }
        meta.len = unpacked.kept;
        meta.addr = source;
    }
}

/// Where relay links put the datagrams they receive.
#[derive(Debug, Clone)]
pub struct Injector {
    pub(super) queue: mpsc::Sender<Injected>,
    pub(super) routes: Arc<Routes>,
    pub(super) counters: Arc<SocketCounters>,
}

impl Injector {
    /// A QUIC datagram that came to a side socket; dropped and counted unless a peer authenticated its source.
    pub fn direct(&self, from: SocketAddr, packet: &[u8]) {
        let Some(source) = self.routes.owner(&from) else {
            self.counters.strangers.fetch_add(1, Relaxed);
            return;
        };
        let batch = Injected { source, payload: Bytes::copy_from_slice(packet), segment_size: 0 };
        if self.queue.try_send(batch).is_err() {
            self.counters.injected_dropped.fetch_add(1, Relaxed);
        }
    }

    /// Counts a probe of no session that came to a side socket.
    pub fn count_stranger(&self) {
        self.counters.strangers.fetch_add(1, Relaxed);
    }

    /// A batch that came over `relay`; dropped and counted unless every datagram looks like QUIC and its source is a peer of ours.
    pub fn relayed(
        &self,
        relay: RelayId,
        source: &gateway_proto::relay::RelayAddress,
        segment_size: u16,
        payload: Bytes,
        now: Instant,
    ) {
        // First of all: what is no QUIC says nothing of where its source is heard.
        let quic = gateway_proto::relay::segments(segment_size, &payload).all(|d| classify(d) == PacketClass::Quic);
        if payload.is_empty() || !quic {
            self.counters.unknown.fetch_add(1, Relaxed);
            return;
        }
        let Some(source) = self.routes.known(source, relay, now) else {
            self.counters.strangers.fetch_add(1, Relaxed);
            return;
        };
        let batch = Injected { source, payload, segment_size: usize::from(segment_size) };
        if self.queue.try_send(batch).is_err() {
            self.counters.injected_dropped.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::{
        identity::GatewayKey,
        nat64::{Nat64, Nat64Prefix},
        relay::{Seen, Standing},
        stun,
    };

    use super::*;
    use crate::{path_actor::SessionIndex, routes::peer_address};

    const HOME: RelayId = RelayId::from_bytes([1; 16]);
    const OTHER: RelayId = RelayId::from_bytes([2; 16]);
    /// The first byte of a short header, and some more.
    const QUIC: &[u8] = &[0x41; 32];

    #[tokio::test]
    async fn what_comes_through_a_nat64_is_known_by_its_ipv4_address() {
        let (routes, key) = (Arc::new(Routes::default()), GatewayKey::from_seed(&[1; 32]).public());
        let bind = ["127.0.0.1:0".parse().unwrap()];
        let (socket, mut probes) =
            TunnelSocket::bind(bind.into_iter(), routes.clone(), SessionIndex::default()).unwrap();
        let _arrivals = routes.meet(key, true);
        let inner: SocketAddr = "198.51.100.7:4000".parse().unwrap();
        let outer: SocketAddr = "[2001:db8:6464::c633:6407]:4000".parse().unwrap();
        let take = |packet: &[u8]| {
            let (mut buffer, len) = (packet.to_vec(), packet.len());
            let mut meta = RecvMeta { addr: outer, len, stride: len, ecn: None, dst_ip: None };
            socket.sort(&mut buffer, &mut meta);
            (meta.len == len).then_some(meta.addr)
        };
        let peer = Some(peer_address(&key.into()));
        routes.admit(outer, key);
        nat64::set(Nat64::new(Nat64Prefix::new("2001:db8:6464::".parse().unwrap(), 96)));
        assert_eq!(take(QUIC), peer, "it was met before the prefix was known");
        routes.dismiss(outer, key);
        assert_eq!(take(QUIC), None, "a stranger");
        routes.admit(inner, key);
        assert_eq!(take(QUIC), peer);
        assert_eq!(take(&stun::binding_response(&[1; 12], inner)), None);
        assert_eq!(probes.try_recv().unwrap().from, inner);
        nat64::set(Nat64::default());
        assert_eq!(take(QUIC), None, "on a network without one it is another host");
    }

    #[tokio::test]
    async fn what_is_no_quic_says_nothing_of_where_a_peer_is_heard() {
        let (routes, now) = (Arc::new(Routes::default()), Instant::now());
        let bind = ["127.0.0.1:0".parse().unwrap()];
        let (socket, _probes) = TunnelSocket::bind(bind.into_iter(), routes.clone(), SessionIndex::default()).unwrap();
        let key = GatewayKey::from_seed(&[1; 32]).public();
        let arrivals = routes.meet(key, true);
        let links = [HOME, OTHER].map(|relay| Seen {
            relay,
            standing: Standing::Sound,
            restarting: false,
            falls: 0,
            drops: None,
        });
        let spare = || arrivals.with(|choice| choice.choose(&links, None, now)).spare;
        let injector = socket.injector();
        let arrives = |relay, packet| injector.relayed(relay, &key.into(), 0, Bytes::from_static(packet), now);
        arrives(HOME, QUIC);
        assert_eq!(spare(), None);
        for packet in [b"".as_slice(), b"\0 and whatever follows", b" a probe's first byte"] {
            arrives(OTHER, packet);
            assert_eq!(spare(), None, "{packet:?}");
        }
        assert_eq!(socket.counters().unknown.load(Relaxed), 3);
        arrives(OTHER, QUIC);
        assert_eq!(spare(), Some(OTHER));
    }
}
