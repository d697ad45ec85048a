use gateway_proto::id::UserId;

use super::*;
use crate::{clock::DAY_SECS, service::ground::Ground};

const AHEAD: u64 = 30 * DAY_SECS;

/// A session that is made at a time.
async fn sign_in(ground: &Ground, user: UserId, token: &str, now: u64) {
    let mut tx = ground.begin().await;
    tx.insert_session(token, user, now + SESSION_SECS, latest_end(now), SESSIONS_PER_USER).await.unwrap();
    tx.commit().await.unwrap();
}

async fn counts(ground: &Ground, token: &str, now: u64) -> bool {
    ground.read().await.session_user(token, now, latest_end(now)).await.unwrap().is_some()
}

#[tokio::test]
async fn sessions_of_a_clock_that_was_ahead_take_no_place_and_do_not_come_back() {
    let ground = Ground::new().await;
    let (user, now) = (ground.owner().await, 1_800_000_000);
    for n in 0..u64::from(SESSIONS_PER_USER) {
        sign_in(&ground, user, &format!("early {n}"), now + AHEAD + n).await;
    }
    assert!(!counts(&ground, "early 0", now).await);
    sign_in(&ground, user, "fresh", now).await;
    assert!(counts(&ground, "fresh", now).await, "there is room for it");
    assert!(!counts(&ground, "early 0", now + AHEAD).await, "it was ended");
}

#[tokio::test]
async fn a_session_of_a_clock_that_was_ahead_is_ended_although_nobody_signs_in_again() {
    let ground = Ground::new().await;
    let (user, now) = (ground.owner().await, ground.service.clock().unix_secs());
    sign_in(&ground, user, "early", now + AHEAD).await;
    let mut tx = ground.begin().await;
    tx.insert_session("of now", user, now + SESSION_SECS, u64::MAX, SESSIONS_PER_USER).await.unwrap();
    tx.commit().await.unwrap();
    ground.service.purge().await.unwrap();
    assert!(counts(&ground, "of now", now).await);
    assert!(!counts(&ground, "early", now + AHEAD).await);
}
