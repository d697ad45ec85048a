use std::time::Duration;

use gateway_proto::relay::udp::{LIMIT_IN_DOUBT, MAX_PAYLOAD, UdpReach, Via};

use super::*;

const SECRET: UdpSecret = UdpSecret::from_bytes([7; 32]);

fn peer(number: u8) -> RelayAddress {
    RelayAddress::from_bytes([number; 32])
}

/// A leg that uses UDP, and the relay's end of its session.
fn up(now: Instant) -> (UdpLeg, UdpSession) {
    let (leg, relay, _) = met(now);
    (leg, relay)
}

/// The same, and what the relay knows of the way back.
fn met(now: Instant) -> (UdpLeg, UdpSession, UdpReach) {
    let leg = UdpLeg::of(RelayId::from_bytes([1; 16]));
    let remote: SocketAddr = "192.0.2.1:3478".parse().unwrap();
    leg.start(&Offer { session: 1, secret: SECRET, address: String::new(), port: 0 }, &[remote], now);
    let (mut relay, mut reach) = (UdpSession::of_relay(1, &SECRET), UdpReach::new(&[1; 16]));
    for _ in 0..2 {
        answer_pings(&leg, &mut relay, &mut reach, now);
    }
    assert_eq!(leg.reason(), CarrierReason::Passes);
    (leg, relay, reach)
}

fn answer_pings(leg: &UdpLeg, relay: &mut UdpSession, reach: &mut UdpReach, now: Instant) {
    let remote = "192.0.2.1:3478".parse().unwrap();
    for mut ping in leg.work(now).pings {
        relay.open(&ping).unwrap();
        let (id, echo) = UdpSession::read_ping(&ping).unwrap();
        let answer = reach.pinged(Via { local: 0, remote }, id, echo, now);
        relay.pong(answer, &mut ping);
        let length = ping.len();
        assert!(leg.receive(&mut ping, length, now).source.is_none());
    }
}

fn sent(leg: &UdpLeg, to: u8, payload: &[u8], segment: Option<usize>, now: Instant) -> Option<(Vec<u8>, usize)> {
    let mut seen = None;
    let result = leg.send(peer(to), payload, segment, now, |_, train, segment| {
        seen = Some((train.to_vec(), segment));
        Ok(())
    });
    assert_eq!(matches!(result, OverUdp::No), seen.is_none());
    seen
}

#[test]
fn a_batch_goes_over_udp_once_the_relay_knows_the_peer() {
    let now = Instant::now();
    let (leg, mut relay) = up(now);
    assert!(sent(&leg, 9, &[0x40; 100], None, now).is_none(), "the WebSocket carries the first");
    let frames = leg.work(now).frames;
    assert!(frames.contains(&ClientFrame::UdpLimit(MAX_PAYLOAD as u16).encode()));
    assert!(frames.contains(&ClientFrame::BindSlot { slot: 0, peer: peer(9) }.encode()));
    leg.slot_bound(0);
    let (train, segment) = sent(&leg, 9, &[0x40; 2500], Some(1200), now).unwrap();
    assert_eq!((train.len(), segment), (2500 + 3 * OVERHEAD, 1200 + OVERHEAD));
    assert!(train.chunks(segment).all(|datagram| relay.open(datagram).is_ok()));
    assert!(sent(&leg, 9, &[0x40; MAX_PAYLOAD + 1], None, now).is_none(), "what does not fit goes the other way");
}

#[test]
fn a_received_train_is_unpacked_in_place_and_split_by_peer() {
    let now = Instant::now();
    let (leg, mut relay) = up(now);
    for (slot, number) in [(0, 8), (1, 9)] {
        sent(&leg, number, &[0x40], None, now);
        leg.slot_bound(slot);
    }
    let mut train = Vec::new();
    for (slot, byte) in [(0, 0x41), (1, 0x42), (0, 0x43), (1, 0x44), (2, 0x45), (0, 0x01)] {
        let mut one = Vec::new();
        relay.seal_train(slot, &[byte; 50], 0, &mut one);
        train.extend(one);
    }
    let mut forged = train[..50 + OVERHEAD].to_vec();
    forged[20] ^= 1;
    train.extend(forged);
    let unpacked = leg.receive(&mut train, 50 + OVERHEAD, now);
    assert_eq!(unpacked.source, Some((peer_address(&peer(8)), peer(8))));
    assert_eq!(&train[..unpacked.kept], [[0x41; 50], [0x43; 50]].concat());
    assert_eq!(unpacked.others, [(peer_address(&peer(9)), [[0x42; 50], [0x44; 50]].concat())]);
    assert_eq!(unpacked.refused, 3, "an unknown slot, no QUIC, a wrong MAC");
}

#[test]
fn while_an_answer_is_overdue_both_carriers_are_used() {
    let now = Instant::now();
    let (leg, _) = up(now);
    sent(&leg, 9, &[0x40; 100], None, now);
    leg.slot_bound(0);
    let asked = now + Duration::from_millis(300);
    assert_eq!(leg.work(asked).pings.len(), 1);
    let overdue = asked + Duration::from_millis(150);
    let result = leg.send(peer(9), &[0x40; 100], None, overdue, |_, _, _| Ok(()));
    assert!(matches!(result, OverUdp::Doubtful), "{result:?}");
    let frames = leg.work(overdue).frames;
    assert_eq!(frames, [ClientFrame::UdpLimit(MAX_PAYLOAD as u16 | LIMIT_IN_DOUBT).encode()]);
}

#[test]
fn what_a_tunnel_says_while_nobody_uses_it_is_not_watched_and_a_stream_that_begins_is() {
    let now = Instant::now();
    let (leg, mut relay, mut reach) = met(now);
    sent(&leg, 9, &[0x40; 100], None, now);
    leg.slot_bound(0);
    // What was watched until then.
    let at = now + Duration::from_secs(10);
    answer_pings(&leg, &mut relay, &mut reach, at);
    // A question, its answer, an acknowledgement; the peer's question comes over the WebSocket.
    assert!(sent(&leg, 9, &[0x40; 45], None, at).is_some());
    let mut answer = Vec::new();
    relay.seal_train(0, &[0x40; 55], 0, &mut answer);
    let length = answer.len();
    assert_eq!(leg.receive(&mut answer, length, at).kept, 55);
    assert!(sent(&leg, 9, &[0x40; 30], None, at).is_some());
    leg.came(&peer(9), 45, at);
    // While data moves, the next ping is due by then.
    let later = at + Duration::from_millis(300);
    assert!(leg.work(later).pings.is_empty());
    leg.came(&peer(9), 88, later);
    assert_eq!(leg.work(later).pings.len(), 1);
}

#[test]
fn without_a_session_everything_goes_over_the_websocket() {
    let now = Instant::now();
    let (leg, _) = up(now);
    assert_eq!(leg.end(CarrierReason::NotOffered).len(), 1);
    assert!(sent(&leg, 9, &[0x40; 100], None, now).is_none());
    assert!(leg.receive(&mut [0x30; 100], 100, now).source.is_none());
    assert!(leg.work(now).due.is_none());
}

#[test]
fn an_address_over_which_nothing_comes_back_is_followed_by_the_next() {
    let now = Instant::now();
    let leg = UdpLeg::of(RelayId::from_bytes([1; 16]));
    let remotes = ["[2001:db8::1]:3478", "192.0.2.1:3478"].map(|address| address.parse::<SocketAddr>().unwrap());
    leg.start(&Offer { session: 1, secret: SECRET, address: String::new(), port: 0 }, &remotes, now);
    let (mut at, mut used) = (now, Vec::new());
    while at < now + Duration::from_secs(30) {
        let work = leg.work(at);
        if !work.pings.is_empty() && used.last() != Some(&work.remote) {
            used.push(work.remote);
        }
        at = work.due.unwrap().max(at + Duration::from_millis(1));
    }
    assert!(used.len() >= 3, "{used:?}");
    assert_eq!(used[..3], [Some(remotes[0]), Some(remotes[1]), Some(remotes[0])]);
    assert_eq!(leg.end(CarrierReason::NotOffered).len(), 2);
}
