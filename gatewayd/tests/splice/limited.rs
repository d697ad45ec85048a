//! Limits of the channel's owner, at the owner's gateway: slower, silent no longer than allowed, and not a byte different.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use gateway_proto::{
    limits::ChannelLimits,
    observe::{Book, Protocol},
    stream::ResetCode,
};
use gatewayd::{
    splice::SpliceError,
    traffic::{Pace, Way},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{FIN, LIMIT, MESSAGE, RST, end, joined_under, joined_with, read};

/// Bytes that show any that is missing, doubled or out of place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at % 251) as u8).collect()
}

/// Until what a stream has read waits for its turn.
async fn waits_for_its_turn(pace: &Pace) {
    let waits = async {
        while !pace.is_waited_for() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, waits).await.expect("a stream waits for its turn");
}

#[tokio::test]
async fn a_limited_connection_is_slower_in_both_directions_at_once_and_no_byte_is_lost_changed_or_moved() {
    const RATE: u64 = 200_000;
    let sent = pattern(RATE as usize);
    let limits = ChannelLimits { bytes_per_second: Some(RATE), ..ChannelLimits::default() };
    let mut joined = joined_under(false, limits).await;
    let began = Instant::now();
    let (mut sender_reads, mut sender_writes) = joined.sending.split();
    let (mut receiver_reads, mut receiver_writes) = joined.receiving.split();
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let transfer = async {
        tokio::try_join!(
            async {
                sender_writes.write_all(&sent).await?;
                sender_writes.shutdown().await
            },
            async {
                receiver_writes.write_all(&sent).await?;
                receiver_writes.shutdown().await
            },
            sender_reads.read_to_end(&mut back),
            receiver_reads.read_to_end(&mut there),
        )
    };
    timeout(2 * LIMIT, transfer).await.expect("it passes in the end").unwrap();
    // A second's worth each way, a quarter of it at once.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}");
    assert!(there == sent && back == sent, "every byte, in its order");
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Ok(()));
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Ok(()));
    assert_eq!(joined.from_receiving.bytes_received.load(Relaxed), RATE);
}

#[tokio::test]
async fn the_owners_gateway_takes_no_more_than_may_go_on_whatever_the_partners_sends() {
    let limits = ChannelLimits { bytes_per_second: Some(1_000), ..ChannelLimits::default() };
    let mut joined = joined_under(false, limits).await;
    // More than all windows and buffers between the two engines hold: were it taken, the partner could send it all.
    let flood = vec![7; 32 << 20];
    let sending = joined.sending.write_all(&flood);
    assert!(timeout(Duration::from_secs(2), sending).await.is_err(), "the sending engine has to wait");
    let passed = joined.from_receiving.bytes_received.load(Relaxed);
    assert!((512..=10_000).contains(&passed), "{passed} bytes in two seconds");
    joined.allowed.cancel();
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Err(SpliceError::NotAllowed));
}

#[tokio::test]
async fn a_stream_in_which_nothing_passes_is_reset_at_both_engines_and_both_gateways_say_and_count_why() {
    let limits = ChannelLimits { receive_timeout_secs: Some(3), ..ChannelLimits::default() };
    let mut joined = joined_under(true, limits).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    let last = Instant::now();
    joined.receiving.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    assert_eq!(end(&mut joined.sending).await, RST);
    assert!(last.elapsed() >= Duration::from_secs(3), "{:?} after the last byte", last.elapsed());
    assert_eq!(end(&mut joined.receiving).await, RST);
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Err(SpliceError::Silent));
    let far = timeout(LIMIT, joined.sender).await.unwrap().unwrap();
    assert_eq!(far, Err(SpliceError::Peer(ResetCode::Silent)));
    for traffic in [joined.from_receiving, joined.from_sending] {
        assert_eq!(traffic.silent.load(Relaxed), 1);
        assert!(traffic.problem().unwrap().contains("receive timeout of the grant"), "{:?}", traffic.problem());
    }
}

/// The owner's gateway hands the whole document to QUIC at once, and no other byte comes for longer than the timeout.
#[tokio::test]
async fn a_document_that_a_partners_engine_reads_slowly_is_not_reset_as_silent() {
    let limits = ChannelLimits { receive_timeout_secs: Some(2), ..ChannelLimits::default() };
    let mut joined = joined_under(false, limits).await;
    let document = pattern(3 << 20);
    joined.receiving.write_all(&document).await.unwrap();
    let (began, mut arrived) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(5) {
        arrived.extend(read(&mut joined.sending, 32 << 10).await);
        // The engine is slow.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rest = read(&mut joined.sending, document.len() - arrived.len()).await;
    arrived.extend(rest);
    assert!(arrived == document, "every byte, in its order");
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE, "and the conversation goes on");
    assert_eq!(joined.from_receiving.silent.load(Relaxed), 0);
}

#[tokio::test]
async fn an_acknowledgement_that_waits_for_its_turn_when_the_engine_resets_arrives_before_the_reset() {
    let limits = ChannelLimits { bytes_per_second: Some(1_000), ..ChannelLimits::default() };
    let mut joined = joined_under(false, limits).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    // Another stream of the connection is the first of those that wait, for a minute. The answer is longer than a piece.
    let (pace, rate) = (joined.from_receiving.pace(Way::ToPeer), limits.rate().unwrap());
    let mut first = Box::pin(pace.take_in_turn(60_000, rate));
    assert!(timeout(Duration::ZERO, first.as_mut()).await.is_err(), "it waits");
    let answer = pattern(4 * rate.piece());
    joined.receiving.write_all(&answer).await.unwrap();
    socket2::SockRef::from(&joined.receiving).set_linger(Some(Duration::ZERO)).unwrap();
    drop(joined.receiving);
    assert_eq!(read(&mut joined.sending, answer.len()).await, answer);
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Err(SpliceError::Engine));
    drop(first);
    assert!(!pace.take_at_once(1, rate), "the rate is paid for by what comes later");
}

#[tokio::test]
async fn an_engine_that_resets_gets_no_more_past_the_rate_than_its_last_bytes() {
    let limits = ChannelLimits { bytes_per_second: Some(1_000), ..ChannelLimits::default() };
    let mut joined = joined_under(false, limits).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    // As much as the kernel takes for a gateway that does not read it.
    let flood = vec![7; 32 << 20];
    let writing = joined.receiving.write_all(&flood);
    assert!(timeout(Duration::from_millis(500), writing).await.is_err(), "the engine has to wait");
    socket2::SockRef::from(&joined.receiving).set_linger(Some(Duration::ZERO)).unwrap();
    drop(joined.receiving);
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Err(SpliceError::Engine));
    let passed = joined.from_receiving.bytes_sent.load(Relaxed);
    assert!(passed <= 8_000, "{passed} bytes");
}

/// What waits was read, and is in no book yet.
#[tokio::test]
async fn a_message_that_waits_for_its_turn_when_the_partner_closes_ends_with_a_reset_and_never_with_a_fin() {
    let limits = ChannelLimits { bytes_per_second: Some(1_000), ..ChannelLimits::default() };
    let mut joined = joined_with(true, limits, limits).await;
    // Its turn comes within the second that our engine has to close.
    let pace = joined.from_sending.pace(Way::ToPeer);
    assert!(pace.take_early(1_100, limits.rate().unwrap()));
    joined.sending.write_all(MESSAGE).await.unwrap();
    waits_for_its_turn(pace).await;
    joined.receiving.shutdown().await.unwrap();
    joined.sending.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Err(SpliceError::PartnerClosed));
    assert_eq!(joined.from_sending.bytes_sent.load(Relaxed), 0, "nobody was there for it");
}

#[tokio::test]
async fn a_message_that_waits_for_its_turn_when_its_engine_resets_takes_no_turn_from_the_others() {
    let limits = ChannelLimits { bytes_per_second: Some(1_000), ..ChannelLimits::default() };
    let mut joined = joined_with(true, limits, limits).await;
    let pace = joined.from_sending.pace(Way::ToPeer);
    assert!(pace.take_early(8_000, limits.rate().unwrap()));
    joined.sending.write_all(MESSAGE).await.unwrap();
    waits_for_its_turn(pace).await;
    socket2::SockRef::from(&joined.sending).set_linger(Some(Duration::ZERO)).unwrap();
    drop(joined.sending);
    assert_eq!(end(&mut joined.receiving).await, RST);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Err(SpliceError::Engine));
    assert_eq!(joined.from_sending.bytes_sent.load(Relaxed), 0, "its engine sends it again");
}

#[tokio::test]
async fn a_stream_that_waits_for_its_turn_under_the_rate_is_not_silent() {
    let limits = ChannelLimits { bytes_per_second: Some(1_000), receive_timeout_secs: Some(3) };
    let mut joined = joined_under(false, limits).await;
    // Another stream of the connection took the next four seconds.
    assert!(joined.from_receiving.pace(Way::FromPeer).take_early(4_250, limits.rate().unwrap()));
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    joined.sending.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.receiving).await, FIN);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Ok(()));
    assert_eq!(joined.from_receiving.silent.load(Relaxed), 0);
}

#[tokio::test]
async fn the_senders_gateway_sends_no_more_than_the_owners_lets_pass_and_hands_answers_on_at_once() {
    let limits = ChannelLimits { bytes_per_second: Some(1_000), receive_timeout_secs: Some(3) };
    let mut joined = joined_with(false, limits, limits).await;
    let flood = vec![7; 32 << 20];
    let (mut answers, mut sending) = joined.sending.split();
    // The owner's gateway alone counts the rate of what it sends.
    assert!(joined.from_sending.pace(Way::FromPeer).take_early(8_000, limits.rate().unwrap()));
    joined.receiving.write_all(MESSAGE).await.unwrap();
    let mut answer = vec![0; MESSAGE.len()];
    timeout(LIMIT / 2, answers.read_exact(&mut answer)).await.expect("it waits for no turn").unwrap();
    assert!(
        timeout(Duration::from_secs(2), sending.write_all(&flood)).await.is_err(),
        "the sending engine has to wait"
    );
    let passed = joined.from_sending.bytes_sent.load(Relaxed);
    assert!((512..=10_000).contains(&passed), "{passed} bytes in two seconds");
    assert_eq!(joined.from_sending.silent.load(Relaxed), 0);
    joined.allowed.cancel();
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Err(SpliceError::NotAllowed));
}

#[tokio::test]
async fn a_stream_is_not_silent_while_it_may_wait_for_its_turn_at_the_partners_gateway() {
    let limits = ChannelLimits { bytes_per_second: Some(2_000), receive_timeout_secs: Some(3) };
    let mut joined = joined_with(true, limits, limits).await;
    let _open: Vec<_> = (0..4).map(|_| joined.from_receiving.open_stream(64).unwrap()).collect();
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    let last = Instant::now();
    assert_eq!(end(&mut joined.sending).await, RST);
    // Each of the four has a piece of a quarter of a second, and four seconds' worth may have gone before them.
    assert!(last.elapsed() >= Duration::from_secs(8), "{:?} after the last byte", last.elapsed());
}

#[tokio::test]
async fn the_time_before_a_messages_turn_is_no_wait_for_its_answer() {
    let limits = ChannelLimits { bytes_per_second: Some(1_000), ..ChannelLimits::default() };
    let mut joined = joined_with(true, limits, ChannelLimits::default()).await;
    // One piece, twice as long as what may go at once.
    let message = [&MESSAGE[..MESSAGE.len() - 2], &[b'x'; 480], &MESSAGE[MESSAGE.len() - 2..]].concat();
    let began = Instant::now();
    joined.sending.write_all(&message).await.unwrap();
    assert_eq!(read(&mut joined.receiving, message.len()).await, message);
    let waited = began.elapsed();
    joined.receiving.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    let book = joined.from_sending.book(Protocol::Mllp);
    let Book::Mllp(ledger) = &*book.lock().unwrap() else { panic!("MLLP is observed") };
    let answered = ledger.latency().sum();
    assert!(answered > Duration::ZERO && answered < waited / 2, "{answered:?} of {waited:?}");
}
