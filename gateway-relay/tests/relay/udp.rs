//! Relaying over UDP: what passes, what comes another way, what is dropped.

use std::{net::SocketAddr, time::Duration};

use gateway_proto::relay::{
    ClientFrame, RelayFrame,
    udp::{Kind, MAX_DATAGRAM, MIN_PAYLOAD, OVERHEAD, UdpSession},
};
use gateway_relay::config::UdpListen;
use tokio::{net::UdpSocket, time::timeout};

use crate::harness::{Link, TestRelay, address, within};

/// A gateway with a link and a UDP session.
struct Gateway {
    link: Link,
    socket: UdpSocket,
    session: UdpSession,
    relay: SocketAddr,
}

impl Gateway {
    async fn attach(relay: &TestRelay, number: u8) -> Self {
        let link = relay.attach(number).await;
        let (id, secret, port) = link.udp.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = SocketAddr::new(relay.ready.listen.ip(), port);
        Self { link, socket, session: UdpSession::of_gateway(id, &secret), relay: address }
    }

    /// Attached, its address proved, the limit told, and the peers bound in this order.
    async fn ready(relay: &TestRelay, number: u8, peers: &[u8]) -> Self {
        let mut gateway = Self::attach(relay, number).await;
        for (slot, peer) in peers.iter().enumerate() {
            gateway.bind(slot as u16, *peer).await;
        }
        gateway.link.send(ClientFrame::UdpLimit(MIN_PAYLOAD as u16)).await;
        gateway.link.send(ClientFrame::Ping([1; 8])).await;
        let bytes = gateway.link.recv().await.unwrap();
        assert_eq!(RelayFrame::decode(&bytes), Ok(RelayFrame::Pong([1; 8])), "the limit is known now");
        gateway.prove().await;
        gateway
    }

    async fn bind(&mut self, slot: u16, peer: u8) {
        self.link.send(ClientFrame::BindSlot { slot, peer: address(peer) }).await;
        let bytes = self.link.recv().await.unwrap();
        assert_eq!(RelayFrame::decode(&bytes), Ok(RelayFrame::SlotBound(slot)));
    }

    /// The round trips that make the relay believe the address.
    async fn prove(&mut self) {
        let challenge = self.ping(1, 0, 100).await.0;
        assert!(self.ping(2, challenge, 100).await.1);
    }

    async fn ping(&mut self, id: u64, echo: u64, payload: usize) -> (u64, bool) {
        let ping = self.session.ping(id, echo, payload);
        self.socket.send_to(&ping, self.relay).await.unwrap();
        let pong = self.receive().await;
        assert_eq!(pong.len(), ping.len(), "a pong is as long as its ping: no amplifier");
        assert_eq!(self.session.open(&pong).unwrap().kind, Kind::Pong);
        let answer = UdpSession::read_pong(&pong).unwrap();
        assert_eq!(answer.id, id);
        (answer.challenge, answer.validated)
    }

    async fn send(&mut self, slot: u16, payload: &[u8]) {
        let mut train = Vec::new();
        assert!(self.session.seal_train(slot, payload, 0, &mut train));
        self.socket.send_to(&train, self.relay).await.unwrap();
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 2_000];
        let length = within(self.socket.recv(&mut buffer)).await.unwrap();
        buffer.truncate(length);
        buffer
    }

    /// The next datagram must be data: its slot and the sealed bytes.
    async fn receive_data(&mut self) -> (u16, Vec<u8>) {
        let datagram = self.receive().await;
        let opened = self.session.open(&datagram).unwrap();
        assert_eq!(opened.kind, Kind::Data);
        (opened.slot, datagram[OVERHEAD..].to_vec())
    }
}

async fn dropped(relay: &TestRelay, reason: &str) -> u64 {
    relay.metric(&format!("dropped_frames_total{{reason=\"{reason}\"}}")).await
}

async fn until_dropped(relay: &TestRelay, reason: &str) {
    relay.until_metric(&format!("dropped_frames_total{{reason=\"{reason}\"}}"), |count| count > 0).await;
}

#[tokio::test]
async fn a_datagram_reaches_its_peer_under_the_number_the_peer_chose() {
    let relay = TestRelay::start().await;
    let mut one = Gateway::ready(&relay, 1, &[3, 2]).await;
    let mut two = Gateway::ready(&relay, 2, &[1]).await;
    one.send(1, b"sealed by one").await;
    assert_eq!(two.receive_data().await, (0, b"sealed by one".to_vec()));
    two.send(0, b"sealed by two").await;
    assert_eq!(one.receive_data().await, (1, b"sealed by two".to_vec()));
    assert_eq!(relay.metric("forwarded_frames_total{kind=\"UdpTrain\"}").await, 2);
}

#[tokio::test]
async fn the_two_carriers_are_mixed_as_each_end_can() {
    let relay = TestRelay::start().await;
    let mut udp = Gateway::ready(&relay, 1, &[2]).await;
    let mut tls = relay.attach(2).await;
    udp.send(0, b"to tls").await;
    assert_eq!(tls.recv_datagrams().await, (address(1), b"to tls".to_vec()));
    tls.send(ClientFrame::SendDatagrams { destination: address(1), segment_size: 3, payload: b"abcdefg" }).await;
    for expected in [&b"abc"[..], b"def", b"g"] {
        assert_eq!(udp.receive_data().await, (0, expected.to_vec()));
    }
    let long = vec![9; MIN_PAYLOAD + 1];
    tls.datagram(1, &long).await;
    assert_eq!(udp.link.recv_datagrams().await.1, long, "what UDP does not carry comes over the link");
    udp.link.send(ClientFrame::UdpLimit(0)).await;
    udp.link.datagram(2, b"in order").await;
    assert_eq!(tls.recv_datagrams().await.1, b"in order");
    tls.datagram(1, b"no UDP any more").await;
    assert_eq!(udp.link.recv_datagrams().await.1, b"no UDP any more");
}

#[tokio::test]
async fn a_gateway_that_is_not_heard_over_udp_gets_its_datagrams_over_the_link() {
    let relay = TestRelay::start().await;
    let mut one = Gateway::ready(&relay, 1, &[2]).await;
    let mut two = Gateway::ready(&relay, 2, &[1]).await;
    // Nothing is heard of two: soon the relay does not trust its address any more.
    within(async {
        loop {
            one.send(0, b"?").await;
            if timeout(Duration::from_millis(50), two.link.recv_datagrams()).await.is_ok() {
                break;
            }
        }
    })
    .await;
    let mut buffer = [0; 2_000];
    while two.socket.try_recv(&mut buffer).is_ok() {}
    two.send(0, b"back").await;
    assert_eq!(one.receive_data().await.1, b"back");
    one.send(0, b"over UDP again").await;
    assert_eq!(two.receive_data().await.1, b"over UDP again");
}

#[tokio::test]
async fn strangers_and_replays_are_dropped_and_nothing_is_answered() {
    let relay = TestRelay::start().await;
    let mut one = Gateway::ready(&relay, 1, &[2]).await;
    let mut two = Gateway::ready(&relay, 2, &[1]).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut forged = one.session.ping(9, 0, 500);
    let target = one.relay;

    let mut of_nobody = forged.clone();
    of_nobody[1] ^= 0xff;
    stranger.send_to(&of_nobody, target).await.unwrap();
    until_dropped(&relay, "NoSession").await;
    forged[20] ^= 1;
    stranger.send_to(&forged, target).await.unwrap();
    until_dropped(&relay, "BadMac").await;
    stranger.send_to(&[0x30, 1, 2], target).await.unwrap();
    relay.until_metric("dropped_frames_total{reason=\"NoSession\"}", |count| count == 2).await;

    // An address must have been proved lately, or its data comes over the link.
    two.prove().await;
    let mut train = Vec::new();
    one.session.seal_train(0, b"once", 0, &mut train);
    one.socket.send_to(&train, target).await.unwrap();
    assert_eq!(two.receive_data().await.1, b"once");
    stranger.send_to(&train, target).await.unwrap();
    until_dropped(&relay, "Replayed").await;

    one.send(7, b"no such slot").await;
    until_dropped(&relay, "NoSlot").await;
    one.prove().await;
    two.send(0, b"to one, not to the stranger").await;
    assert_eq!(one.receive_data().await.1, b"to one, not to the stranger");
    assert!(stranger.try_recv(&mut [0; 100]).is_err(), "a stranger hears nothing");
}

#[tokio::test]
async fn a_gateway_that_moved_is_followed_once_its_new_address_answers() {
    let relay = TestRelay::start().await;
    let mut one = Gateway::ready(&relay, 1, &[2]).await;
    let mut two = Gateway::ready(&relay, 2, &[1]).await;
    let old = std::mem::replace(&mut one.socket, UdpSocket::bind("127.0.0.1:0").await.unwrap());
    one.send(0, b"from elsewhere").await;
    assert_eq!(two.receive_data().await.1, b"from elsewhere", "who proves the session may send from anywhere");
    two.send(0, b"to the old address").await;
    let mut buffer = [0; 200];
    let length = within(old.recv(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[OVERHEAD..length], b"to the old address", "one packet proves no address");
    one.prove().await;
    two.send(0, b"to the new one").await;
    assert_eq!(one.receive_data().await.1, b"to the new one");
}

#[tokio::test]
async fn the_rate_is_one_for_both_carriers_and_pings_have_their_own() {
    let relay = TestRelay::with(|config| {
        config.limits.client_bytes_per_second = 1_000.try_into().ok();
        config.limits.client_burst_bytes = 70_000.try_into().unwrap();
    })
    .await;
    let mut one = Gateway::ready(&relay, 1, &[2]).await;
    let mut two = Gateway::ready(&relay, 2, &[1]).await;
    one.link.datagram(2, &[5; 60_000]).await;
    two.link.recv_datagrams().await;
    for _ in 0..20 {
        one.send(0, &[6; 1_000]).await;
    }
    until_dropped(&relay, "RateLimited").await;
    assert!(relay.metric("forwarded_frames_total{kind=\"UdpTrain\"}").await < 12);
    let before = dropped(&relay, "RateLimited").await;
    for id in 0..200 {
        let ping = one.session.ping(100 + id, 0, 0);
        one.socket.send_to(&ping, one.relay).await.unwrap();
    }
    relay.until_metric("dropped_frames_total{reason=\"RateLimited\"}", |count| count >= before + 100).await;
}

#[tokio::test]
async fn a_session_ends_with_its_link() {
    let relay = TestRelay::start().await;
    let mut one = Gateway::ready(&relay, 1, &[2]).await;
    drop(std::mem::replace(&mut one.link, relay.attach(2).await));
    relay.until_metric("clients", |count| count == 1).await;
    one.send(0, b"too late").await;
    until_dropped(&relay, "NoSession").await;
}

#[tokio::test]
async fn an_own_port_relays_and_answers_the_largest_ping_and_a_relay_can_do_without() {
    let relay = TestRelay::with(|config| config.udp_listen = UdpListen::Own("127.0.0.1:0".parse().unwrap())).await;
    assert!(!relay.ready.stun.contains(&relay.ready.udp.unwrap()));
    let mut one = Gateway::ready(&relay, 1, &[2]).await;
    one.ping(77, 0, MAX_DATAGRAM - OVERHEAD).await;
    let without = TestRelay::with(|config| config.udp_listen = UdpListen::Off).await;
    let mut link = without.attach(1).await;
    link.send(ClientFrame::BindSlot { slot: 0, peer: address(2) }).await;
    link.send(ClientFrame::Ping([2; 8])).await;
    assert_eq!(RelayFrame::decode(&link.recv().await.unwrap()), Ok(RelayFrame::Pong([2; 8])));
}

#[tokio::test]
async fn a_train_stays_a_train_through_the_relay() {
    let relay = TestRelay::start().await;
    let mut one = Gateway::ready(&relay, 1, &[2]).await;
    let mut two = Gateway::ready(&relay, 2, &[1]).await;
    let state = quinn_udp::UdpSocketState::new((&one.socket).into()).unwrap();
    if state.max_gso_segments() < 20 {
        return;
    }
    let payload: Vec<u8> = (0..20 * MIN_PAYLOAD).map(|at| (at / MIN_PAYLOAD) as u8).collect();
    let mut train = Vec::new();
    assert!(one.session.seal_train(0, &payload, MIN_PAYLOAD, &mut train));
    let before = relay.metric("forwarded_frames_total{kind=\"UdpTrain\"}").await;
    let transmit = quinn_udp::Transmit {
        destination: one.relay,
        ecn: None,
        contents: &train,
        segment_size: Some(MIN_PAYLOAD + OVERHEAD),
        src_ip: None,
    };
    one.socket.writable().await.unwrap();
    one.socket.try_io(tokio::io::Interest::WRITABLE, || state.send((&one.socket).into(), &transmit)).unwrap();
    for number in 0..20 {
        let (slot, datagram) = two.receive_data().await;
        assert_eq!((slot, datagram), (0, vec![number; MIN_PAYLOAD]));
    }
    let trains = relay.metric("forwarded_frames_total{kind=\"UdpTrain\"}").await - before;
    assert_eq!(trains, 1, "one train in, one train out");
}
