//! How one engine ends its connection is how the other's ends.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use gateway_proto::{
    observe::{Book, Protocol},
    policy::HL7V2_MLLP,
    stream::ResetCode,
};
use gatewayd::{
    observer::Observer,
    splice::{SpliceError, splice},
    traffic::Role,
};
use quinn::VarInt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{FIN, LIMIT, MESSAGE, RST, context, end, engine, half, joined, read, start};

#[tokio::test]
async fn bytes_and_both_half_closes_are_mirrored() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    joined.sending.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.receiving).await, FIN);
    joined.receiving.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, FIN);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Ok(()));
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Ok(()));
}

#[tokio::test]
async fn a_reset_of_either_engine_is_a_reset_at_the_other() {
    let mut first = joined(false).await;
    socket2::SockRef::from(&first.sending).set_linger(Some(Duration::ZERO)).unwrap();
    drop(first.sending);
    assert_eq!(end(&mut first.receiving).await, RST);
    let mut second = joined(false).await;
    socket2::SockRef::from(&second.receiving).set_linger(Some(Duration::ZERO)).unwrap();
    drop(second.receiving);
    assert_eq!(end(&mut second.sending).await, RST);
}

#[tokio::test]
async fn a_reset_after_a_half_close_is_still_a_reset_at_the_other() {
    let mut joined = joined(false).await;
    joined.sending.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.receiving).await, FIN);
    socket2::SockRef::from(&joined.sending).set_linger(Some(Duration::ZERO)).unwrap();
    drop(joined.sending);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Err(SpliceError::Engine));
    assert!(timeout(LIMIT, joined.listener).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_fin_without_acknowledgement_is_a_reset_for_the_engine_that_waits_for_it() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Err(SpliceError::Unacknowledged));
}

#[tokio::test]
async fn an_engine_that_waits_no_longer_for_the_acknowledgement_is_told_as_the_one_that_closed() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
    joined.sending.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.receiving).await, FIN);
    // It closes in answer only.
    joined.receiving.shutdown().await.unwrap();
    let ended = timeout(LIMIT, joined.sender).await.unwrap().unwrap();
    assert!(matches!(ended, Err(SpliceError::EngineGaveUp(_))), "{ended:?}");
    let words = ended.unwrap_err().to_string();
    assert!(words.starts_with("our engine closed its connection") && words.contains("acknowledgement"), "{words}");
}

#[tokio::test]
async fn a_message_sent_again_after_its_engine_gave_up_is_a_duplicate_at_both_gateways() {
    const NAMED: &[u8] = b"\x0bMSH|^~\\&|a|b|c|d|20260101||ADT^A01|ID1|P|2.5\r\x1c\r";
    let mut joined = joined(true).await;
    joined.sending.write_all(NAMED).await.unwrap();
    assert_eq!(read(&mut joined.receiving, NAMED.len()).await, NAMED);
    joined.sending.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.receiving).await, FIN);
    joined.receiving.shutdown().await.unwrap();
    assert!(timeout(LIMIT, joined.sender).await.unwrap().unwrap().is_err());
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Ok(()));
    for (role, traffic) in [(Role::Sender, joined.from_sending), (Role::Listener, joined.from_receiving)] {
        let again = Observer::new(traffic.clone(), role, HL7V2_MLLP, true);
        match role {
            Role::Sender => again.from_engine(NAMED, Instant::now()),
            Role::Listener => again.from_tunnel(NAMED, Instant::now()),
        };
        let book = traffic.book(Protocol::Mllp);
        let Book::Mllp(ledger) = &*book.lock().unwrap() else { panic!("MLLP is observed") };
        assert_eq!((ledger.counts().duplicates, ledger.counts().retries), (1, 0), "{role:?}");
    }
}

#[tokio::test]
async fn a_message_sent_again_after_the_receiving_engine_closed_is_no_duplicate_at_its_gateway() {
    const NAMED: &[u8] = b"\x0bMSH|^~\\&|a|b|c|d|20260101||ADT^A01|ID1|P|2.5\r\x1c\r";
    let mut joined = joined(true).await;
    joined.sending.write_all(NAMED).await.unwrap();
    assert_eq!(read(&mut joined.receiving, NAMED.len()).await, NAMED);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert!(timeout(LIMIT, joined.listener).await.unwrap().unwrap().is_err());
    let again = Observer::new(joined.from_receiving.clone(), Role::Listener, HL7V2_MLLP, true);
    again.from_tunnel(NAMED, Instant::now());
    let book = joined.from_receiving.book(Protocol::Mllp);
    let Book::Mllp(ledger) = &*book.lock().unwrap() else { panic!("MLLP is observed") };
    assert_eq!((ledger.counts().retries, ledger.counts().duplicates), (1, 0));
}

#[tokio::test]
async fn an_engine_that_closes_at_once_is_told_as_one_without_places_whether_or_not_it_was_given_something() {
    for given in [&b""[..], MESSAGE] {
        let mut joined = joined(true).await;
        joined.sending.write_all(given).await.unwrap();
        if !given.is_empty() {
            // It is there, and stays unread.
            timeout(LIMIT, joined.receiving.readable()).await.unwrap().unwrap();
        }
        drop(joined.receiving);
        assert!(timeout(LIMIT, joined.listener).await.unwrap().unwrap().is_err());
        let problem = joined.from_receiving.problem().unwrap_or_default();
        assert!(problem.contains("at once without a byte"), "given {} bytes: {problem}", given.len());
    }
}

#[tokio::test]
async fn an_engine_that_answers_and_breaks_off_is_not_told_as_one_without_places() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    socket2::SockRef::from(&joined.receiving).set_linger(Some(Duration::ZERO)).unwrap();
    drop(joined.receiving);
    assert_eq!(timeout(LIMIT, joined.listener).await.unwrap().unwrap(), Err(SpliceError::Engine));
    assert_eq!(joined.from_receiving.problem(), None);
}

#[tokio::test]
async fn a_message_whose_gateway_gave_up_waiting_for_the_answer_is_no_duplicate_when_it_comes_again() {
    const NAMED: &[u8] = b"\x0bMSH|^~\\&|a|b|c|d|20260101||ADT^A01|ID1|P|2.5\r\x1c\r";
    for (code, duplicates) in [(ResetCode::GaveUp, 0), (ResetCode::SocketReset, 1)] {
        let joined = joined(true).await;
        let (mut send, _recv) = joined.tunnel.0.open_bi().await.unwrap();
        send.write_all(&[&b"h"[..], NAMED].concat()).await.unwrap();
        let (far_send, mut far_recv) = joined.tunnel.1.accept_bi().await.unwrap();
        far_recv.read_exact(&mut [0]).await.unwrap();
        let (mut engine, gateway) = engine().await;
        let context = context(Role::Listener, joined.from_receiving.clone(), true, &joined.allowed);
        let listener = start(splice(gateway, half(far_send, &joined.tunnel.1), far_recv, context));
        assert_eq!(read(&mut engine, NAMED.len()).await, NAMED);
        send.reset(VarInt::from_u32(code as u32)).unwrap();
        assert_eq!(timeout(LIMIT, listener).await.unwrap().unwrap(), Err(SpliceError::Peer(code)));
        let again = Observer::new(joined.from_receiving.clone(), Role::Listener, HL7V2_MLLP, true);
        again.from_tunnel(NAMED, Instant::now());
        let book = joined.from_receiving.book(Protocol::Mllp);
        let Book::Mllp(ledger) = &*book.lock().unwrap() else { panic!("MLLP is observed") };
        assert_eq!(ledger.counts().duplicates, duplicates, "{code:?}");
    }
}

#[tokio::test]
async fn a_partner_that_closes_before_any_message_is_a_reset_and_never_a_fin() {
    let mut joined = joined(true).await;
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(timeout(LIMIT, joined.sender).await.unwrap().unwrap(), Err(SpliceError::PartnerClosed));
}

#[tokio::test]
async fn a_message_sent_after_the_partner_closed_is_reset_and_not_swallowed() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.write_all(MESSAGE).await.unwrap();
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    joined.receiving.shutdown().await.unwrap();
    joined.sending.write_all(MESSAGE).await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
}

#[tokio::test]
async fn an_acknowledgement_sent_just_before_a_reset_still_arrives() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.write_all(MESSAGE).await.unwrap();
    socket2::SockRef::from(&joined.receiving).set_linger(Some(Duration::ZERO)).unwrap();
    // The gateway must have read it: a reset also destroys what the kernel holds for a reader.
    while joined.from_receiving.bytes_sent.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    drop(joined.receiving);
    assert_eq!(read(&mut joined.sending, MESSAGE.len()).await, MESSAGE);
    assert_eq!(end(&mut joined.sending).await, RST);
}

#[tokio::test]
async fn half_an_acknowledgement_and_a_fin_is_a_reset_too() {
    let mut joined = joined(true).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.write_all(&MESSAGE[..4]).await.unwrap();
    assert_eq!(read(&mut joined.sending, 4).await, &MESSAGE[..4]);
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, RST);
}

#[tokio::test]
async fn a_commit_block_that_accepts_takes_responsibility_and_one_that_refuses_does_not() {
    for (block, expected) in [(b"\x0b\x06\x1c\r", FIN), (b"\x0b\x15\x1c\r", RST)] {
        let mut joined = joined(true).await;
        joined.sending.write_all(MESSAGE).await.unwrap();
        assert_eq!(read(&mut joined.receiving, MESSAGE.len()).await, MESSAGE);
        joined.sending.shutdown().await.unwrap();
        assert_eq!(end(&mut joined.receiving).await, FIN);
        joined.receiving.write_all(block).await.unwrap();
        assert_eq!(read(&mut joined.sending, block.len()).await, block, "the block itself passes unchanged");
        joined.receiving.shutdown().await.unwrap();
        assert_eq!(end(&mut joined.sending).await, expected, "after {block:?}");
    }
}

#[tokio::test]
async fn without_mllp_a_fin_is_mirrored_as_it_is() {
    let mut joined = joined(false).await;
    joined.sending.write_all(MESSAGE).await.unwrap();
    read(&mut joined.receiving, MESSAGE.len()).await;
    joined.receiving.shutdown().await.unwrap();
    assert_eq!(end(&mut joined.sending).await, FIN);
}

#[tokio::test]
async fn the_end_of_the_permission_resets_both_engines() {
    let mut joined = joined(true).await;
    joined.allowed.cancel();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(end(&mut joined.receiving).await, RST);
}

#[tokio::test]
async fn a_stream_whose_task_is_dropped_is_reset_at_both_ends_and_never_finished() {
    let mut joined = joined(true).await;
    joined.sender.abort();
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(end(&mut joined.receiving).await, RST);
}

#[tokio::test]
async fn a_lost_tunnel_resets_both_engines() {
    let mut joined = joined(true).await;
    joined.tunnel.0.close(0u32.into(), b"test");
    assert_eq!(end(&mut joined.sending).await, RST);
    assert_eq!(end(&mut joined.receiving).await, RST);
}

#[tokio::test]
async fn a_large_transfer_both_ways_at_once_arrives_unchanged() {
    let joined = joined(false).await;
    let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let exchange = |socket: TcpStream| {
        let sent = bytes.clone();
        async move {
            let (mut read, mut write) = socket.into_split();
            let mut received = Vec::new();
            let sending = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            tokio::join!(sending, async { read.read_to_end(&mut received).await.unwrap() });
            received
        }
    };
    let both = async { tokio::join!(exchange(joined.sending), exchange(joined.receiving)) };
    let (one, two) = timeout(LIMIT, both).await.unwrap();
    assert!(one == bytes && two == bytes, "both directions carry every byte in order");
}
