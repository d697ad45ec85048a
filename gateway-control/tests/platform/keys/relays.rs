//! What relays are told of the keys that sign their tokens.

use std::time::Duration;

use gateway_proto::{
    identity::{GatewayKey, GatewayPublicKey},
    relay::keys::{KeyBook, RelayKeys},
};
use serde_json::json;

use super::super::harness::{Control, until};

#[tokio::test]
async fn relays_are_told_by_the_key_that_signs_which_keys_count_and_for_how_long_the_one_before_it_does() {
    let control = Control::start_with("relay_token_secs = 600").await;
    let told = async || -> RelayKeys {
        let answer = control.request("GET", "/api/v1/relay-keys").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    };
    let first: GatewayPublicKey = control.ready.policy_key.parse().unwrap();
    let mut book = KeyBook::new(vec![first], None);
    let now = || control.clock.unix_secs();
    assert_eq!(book.take(&told().await, now()), Ok(true));
    assert_eq!(book.keys(now()), [first]);
    // In order: the next key counts before it signs, and the old one for as long as its tokens live.
    control.rotate(json!({"lead_secs": 60})).await;
    assert_eq!(book.take(&told().await, now()), Ok(true));
    assert_eq!(book.keys(now()).len(), 2);
    control.clock.advance(Duration::from_secs(301));
    until("the next key never signs", async || told().await.statement.key != first).await;
    assert_eq!(book.take(&told().await, now()), Ok(true));
    assert!(book.keys(now()).contains(&first) && book.keys(now()).len() == 2);
    assert!(!book.keys(now() + 600).contains(&first));
    // At once: the one before it is of no account any more, and neither is what it signs.
    let second = told().await.statement.key;
    control.rotate(json!({"at_once": true})).await;
    let third = told().await;
    assert_eq!(book.take(&third, now()), Ok(true));
    assert!(!book.keys(now()).contains(&second) && book.keys(now()).contains(&third.statement.key));
    // One that was away for all of it follows.
    let mut late = KeyBook::new(vec![first], None);
    assert_eq!(late.take(&third, now()), Ok(true));
    assert_eq!(late.keys(now()), book.keys(now()));
    let mut stranger = KeyBook::new(vec![GatewayKey::from_seed(&[9; 32]).public()], None);
    assert!(stranger.take(&third, now()).is_err());
}
