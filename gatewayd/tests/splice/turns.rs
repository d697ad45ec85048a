//! Streams that send at the same time: the priorities of turns mean to QUIC what they are meant to.

use std::time::Duration;

use gateway_proto::turns::{Line, Rank, Turns};
use tokio::time::timeout;

use crate::{LIMIT, site, tunnel};

const STREAMS: usize = 16;
const MESSAGE: usize = 64 << 10;
const FAST: Line = Line { window: 1 << 20, round_trip: Duration::from_millis(1) };
const SLOW: Line = Line { window: 12_000, round_trip: Duration::from_millis(100) };

/// Of streams that send a message each at the same time, how many have begun to arrive when the first message is whole.
async fn begun_by_then(line: Line) -> usize {
    let sites = (site(1, 2), site(2, 1));
    let (from, to) = tunnel(&sites.0, &sites.1).await;
    let mut turns = Turns::default();
    // Kept: a half that is dropped tells the other side of its stream at once.
    let mut answers = Vec::new();
    for _ in 0..STREAMS {
        let (mut send, answer) = from.open_bi().await.unwrap();
        answers.push(answer);
        send.set_priority(turns.take(Rank::Message, MESSAGE, || line)).unwrap();
        send.write_all(&[b'm'; MESSAGE]).await.unwrap();
        send.finish().unwrap();
    }
    let (_, mut first) = timeout(LIMIT, to.accept_bi()).await.unwrap().unwrap();
    let message = timeout(LIMIT, first.read_to_end(MESSAGE)).await.expect("it arrives").unwrap();
    assert_eq!(message.len(), MESSAGE);
    let mut begun = 1;
    while futures_util::poll!(std::pin::pin!(to.accept_bi())).is_ready() {
        begun += 1;
    }
    begun
}

#[tokio::test]
async fn on_a_fast_line_messages_of_several_streams_arrive_one_after_the_other() {
    let begun = begun_by_then(FAST).await;
    assert!(begun <= STREAMS / 2, "{begun} of {STREAMS}");
}

#[tokio::test]
async fn on_a_slow_line_nobody_waits_for_the_message_of_another_stream() {
    assert_eq!(begun_by_then(SLOW).await, STREAMS);
}
