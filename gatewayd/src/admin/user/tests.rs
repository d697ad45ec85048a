use std::{
    cell::Cell,
    future::{pending, ready},
};

use super::*;

const HOLD: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn what_a_client_sends_after_its_answer_is_read_within_bounds() {
    let begun = Instant::now();
    assert_eq!(drop_rest(&mut &[1_u8; 100][..]).await, 100, "to its end");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let (mut silent, _open) = tokio::io::duplex(1);
    assert_eq!((drop_rest(&mut silent).await, begun.elapsed()), (0, DROP_SILENCE));
    let dropped = drop_rest(&mut tokio::io::repeat(1)).await;
    assert!((MAX_DROPPED..MAX_DROPPED + PART as u64).contains(&dropped), "{dropped}");
    // A byte now and then is no reason to wait for ever.
    let begun = Instant::now();
    let (mut slow, mut client) = tokio::io::duplex(1);
    let dripping = async {
        loop {
            sleep(DROP_SILENCE / 2).await;
            if client.write_all(&[1]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = drop_rest(&mut slow) => assert_eq!(begun.elapsed(), DROP_FOR),
        () = dripping => {}
    }
}

type Opened = Result<(), OpenError>;

/// What comes of asking with these answers in turn, the last one again and again (none: no answer comes), how often was
/// asked, and how long it took.
async fn asked(hold: Duration, answers: &[Option<Opened>]) -> (Opened, usize, Duration) {
    let (begun, asked) = (Instant::now(), Cell::new(0));
    let ask = |()| {
        let answer = answers[asked.get().min(answers.len() - 1)];
        asked.set(asked.get() + 1);
        async move {
            match answer {
                Some(answer) => answer,
                None => pending().await,
            }
        }
    };
    let result = opened(hold, || ready(()), ask).await;
    (result, asked.get(), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_turns_out_to_be_dead_is_waited_out_and_the_stream_opened_over_the_next() {
    let lost = Some(Err(OpenError::TunnelLost));
    assert_eq!(asked(HOLD, &[lost, lost, Some(Ok(()))]).await, (Ok(()), 3, 2 * RETRY_PAUSE));
    assert_eq!(asked(HOLD, &[None, Some(Ok(()))]).await, (Ok(()), 2, ANSWER_TIMEOUT + RETRY_PAUSE));
}

#[tokio::test(start_paused = true)]
async fn when_the_hold_is_over_the_last_reason_is_told_and_nobody_is_asked_without_end() {
    let (result, times, took) = asked(HOLD, &[Some(Err(OpenError::TunnelLost))]).await;
    assert_eq!(result, Err(OpenError::TunnelLost));
    assert!(took >= HOLD && took <= HOLD + RETRY_PAUSE && times <= 121, "{times} times in {took:?}");
    let (result, times, took) = asked(HOLD, &[None]).await;
    assert_eq!((result, times), (Err(OpenError::NoAnswer), 3));
    assert!(took <= HOLD + ANSWER_TIMEOUT, "{took:?}");
    let lost = Some(Err(OpenError::TunnelLost));
    assert_eq!(asked(Duration::ZERO, &[lost]).await, (Err(OpenError::TunnelLost), 1, Duration::ZERO));
    let none = opened(HOLD, pending::<()>, |()| ready(Ok(()))).await;
    assert_eq!(none, Err(OpenError::NoTunnel(HOLD)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer() {
    let refused = Err(OpenError::Refused(RefusalCode::NotAllowed));
    assert_eq!(asked(HOLD, &[Some(refused)]).await, (refused, 1, Duration::ZERO));
}
