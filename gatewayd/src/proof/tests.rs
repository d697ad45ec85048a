use std::pin::pin;

use super::*;

/// Of a tunnel that is up, and has asked once.
fn asked() -> Proof {
    let proof = Proof::new(Arc::new(Notify::new()));
    proof.tunnel_is(Some(Pulse::new(true, Instant::now())));
    proof.with(Pulse::ask).unwrap();
    proof
}

/// The path actor waits for an answer beside many other things, and anew after each of them.
#[tokio::test]
async fn an_answer_that_comes_with_something_else_is_there_at_the_next_look() {
    let proof = asked();
    let mut answers = proof.answers();
    {
        let mut waits = pin!(answers.changed());
        assert!(futures_util::poll!(&mut waits).is_pending());
        // Both at once; the other thing is taken, and this is dropped.
        proof.answered(1).unwrap();
    }
    assert!(futures_util::poll!(pin!(answers.changed())).is_ready());
    assert!(futures_util::poll!(pin!(answers.changed())).is_pending(), "once");
}

#[tokio::test]
async fn a_refresh_ends_with_the_answer_and_an_answer_to_nothing_ends_none() {
    let proof = asked();
    let mut refresh = pin!(proof.refresh(Duration::from_secs(3600)));
    assert!(futures_util::poll!(&mut refresh).is_pending());
    proof.answered(9).unwrap();
    assert!(futures_util::poll!(&mut refresh).is_pending());
    proof.answered(1).unwrap();
    refresh.await;
}
