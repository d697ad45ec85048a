//! Streams that send at the same time: the priorities of turns mean to QUIC what they are meant to.

use std::{
    task::Poll,
    time::{Duration, Instant},
};

use gateway_proto::turns::{Line, Place, TURN_LEN, Turns};
use gatewayd::{send_half::SendHalf, tunnel::Tunnel};
use tokio::time::timeout;

use crate::{LIMIT, site, tunnel};

const STREAMS: usize = 16;

/// Of streams that send a message each at the same time, how many have begun to arrive when the first message is whole.
async fn begun_by_then(keeps_up: bool) -> usize {
    let sites = (site(1, 2), site(2, 1));
    let (from, to) = tunnel(&sites.0, &sites.1).await;
    let (mut turns, now) = (Turns::default(), Instant::now());
    let line = Line { window: 1 << 20, round_trip: Duration::from_millis(1), drained_at: keeps_up.then_some(now) };
    // Kept: a half that is dropped tells the other side of its stream at once.
    let mut answers = Vec::new();
    for _ in 0..STREAMS {
        let (mut send, answer) = from.open_bi().await.unwrap();
        answers.push(answer);
        let mut place = Place::default();
        assert!(place.sends(TURN_LEN));
        turns.send(&mut place, TURN_LEN, line, now);
        send.set_priority(place.priority()).unwrap();
        send.write_all(&[b'm'; TURN_LEN]).await.unwrap();
        send.finish().unwrap();
    }
    let (_, mut first) = timeout(LIMIT, to.accept_bi()).await.unwrap().unwrap();
    let message = timeout(LIMIT, first.read_to_end(TURN_LEN)).await.expect("it arrives").unwrap();
    assert_eq!(message.len(), TURN_LEN);
    let mut begun = 1;
    while futures_util::poll!(std::pin::pin!(to.accept_bi())).is_ready() {
        begun += 1;
    }
    begun
}

#[tokio::test]
async fn where_a_tunnel_keeps_up_messages_of_several_streams_arrive_one_after_the_other() {
    let begun = begun_by_then(true).await;
    assert!(begun <= STREAMS / 2, "{begun} of {STREAMS}");
}

#[tokio::test]
async fn where_it_does_not_nobody_waits_for_the_message_of_another_stream() {
    assert_eq!(begun_by_then(false).await, STREAMS);
}

#[tokio::test]
async fn a_message_passes_what_a_transfer_has_written_before_it() {
    const MESSAGE: usize = 512 << 10;
    const TRANSFER: usize = 3 << 20;
    let sites = (site(1, 2), site(2, 1));
    let (from, to) = tunnel(&sites.0, &sites.1).await;
    let both = Tunnel::new(from.clone());
    let (transfer, _answer) = from.open_bi().await.unwrap();
    let (message, _other_answer) = from.open_bi().await.unwrap();
    let (mut transfer, mut message) = (SendHalf::new(transfer, &both), SendHalf::new(message, &both));
    // The window has room for all of it: none is sent before this task waits.
    for _ in 0..TRANSFER / TURN_LEN {
        transfer.write_all(&[b't'; TURN_LEN]).await.unwrap();
    }
    message.write_all(&[b'm'; MESSAGE]).await.unwrap();
    message.finish();
    let (_, mut of_transfer) = timeout(LIMIT, to.accept_bi()).await.unwrap().unwrap();
    let (_, mut of_message) = timeout(LIMIT, to.accept_bi()).await.unwrap().unwrap();
    timeout(LIMIT, of_message.read_to_end(MESSAGE)).await.expect("it arrives").unwrap();
    let mut passed = 0;
    let mut part = vec![0; TURN_LEN];
    while let Poll::Ready(read) = futures_util::poll!(std::pin::pin!(of_transfer.read(&mut part))) {
        passed += read.unwrap().unwrap();
    }
    assert!(passed < MESSAGE / 2, "{passed} bytes of the transfer came before it");
}
