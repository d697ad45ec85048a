use gateway_proto::limits::Rate;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_direction_that_has_used_up_its_rate_takes_nothing_from_the_other() {
    let (traffic, rate) = (Traffic::default(), Rate::new(1_000));
    assert!(traffic.pace(Way::ToPeer).take_early(8_000, rate));
    assert!(!traffic.pace(Way::ToPeer).take_at_once(100, rate));
    assert!(traffic.pace(Way::FromPeer).take_at_once(100, rate));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_its_turn_says_so() {
    let (traffic, rate) = (Traffic::default(), Rate::new(1_000));
    assert!(traffic.pace(Way::FromPeer).take_early(8_000, rate));
    assert_eq!(traffic.waiting(), None);
    let mut turn = Box::pin(traffic.pace(Way::FromPeer).take_in_turn(100, rate));
    assert!(tokio::time::timeout(Duration::ZERO, turn.as_mut()).await.is_err());
    assert_eq!(traffic.waiting().as_deref(), Some("waiting for a turn under the rate of the grant"));
    turn.await;
    assert_eq!(traffic.waiting(), None);
}

#[test]
fn what_went_ahead_of_the_answer_was_sent_when_the_far_side_took_it() {
    let traffic = Traffic::default();
    traffic.sent_ahead(10);
    assert_eq!((traffic.bytes_sent.load(Relaxed), traffic.last_sent_at.load(Relaxed)), (10, 0));
    traffic.taken();
    assert_ne!(traffic.last_sent_at.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_says_for_what_and_for_how_long_of_how_long_and_the_longest_wait_speaks_for_all() {
    let traffic: Arc<Traffic> = Arc::default();
    assert_eq!(traffic.waiting(), None);
    let first = traffic.wait(WaitFor::Tunnel, Instant::now() + Duration::from_secs(3));
    tokio::time::advance(Duration::from_millis(2100)).await;
    assert_eq!(traffic.waiting().as_deref(), Some("waiting for the tunnel, 2.1 s of 3.0 s"));
    let second = traffic.wait(WaitFor::Answer, Instant::now() + Duration::from_secs(2));
    assert_eq!(traffic.waiting().as_deref(), Some("waiting for the tunnel, 2.1 s of 3.0 s; 1 more wait"));
    drop(first);
    assert_eq!(traffic.waiting().as_deref(), Some("waiting for the partner's answer, 0.0 s of 2.0 s"));
    drop(second);
    assert_eq!(traffic.waiting(), None);
}

#[test]
fn every_book_has_an_epoch_of_its_own_and_keeps_it() {
    let traffic = Traffic::default();
    let (first, _) = traffic.dated_book(Protocol::Mllp);
    assert_eq!(traffic.dated_book(Protocol::Mllp).0, first);
    let (without, _) = traffic.dated_book(Protocol::Unknown);
    let (second, _) = traffic.dated_book(Protocol::Mllp);
    assert!(first < without && without < second, "{first} {without} {second}");
}
