//! Rotation of the keys that sign policies, and of the tokens of the platform.

mod relays;
mod tokens;

use std::time::Duration;

use gateway_control::storage::Storage;
use gateway_proto::{
    api::{
        Page,
        gateway::{WatchEvent, WatchRequest},
        platform::{PolicyKey, PolicyKeyState, Server},
    },
    id::ServerId,
    identity::GatewayPublicKey,
    policy::PolicyStore,
    signed::{Assertion, Envelope, RelayToken},
    succession::follow,
};
use serde_json::{Value, json};

use super::{
    database,
    harness::{Control, Gateway, Watch, open_watch, until},
};

impl Control {
    async fn policy_keys(&self) -> Vec<PolicyKey> {
        let answer = self.as_operator("GET", "/policy-keys", json!({})).await;
        answer.json::<Page<PolicyKey>>().await.unwrap().items
    }

    async fn rotate(&self, body: Value) -> Vec<PolicyKey> {
        let answer = self.as_operator("POST", "/policy-keys/rotate", body).await;
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        answer.json::<Page<PolicyKey>>().await.unwrap().items
    }

    /// Waits until a key signs.
    async fn until_signing(&self, key: &str) {
        let signs = |known: &PolicyKey| known.key == key && known.state == PolicyKeyState::Signing;
        until("the key never signed", async || self.policy_keys().await.iter().any(signs)).await;
    }
}

/// A gateway as gatewayd is: its store and the keys it trusts live on between watches.
struct Survivor<'a> {
    gateway: &'a Gateway,
    store: PolicyStore,
}

impl Survivor<'_> {
    /// Watches by naming the newest key it trusts, until a policy is as told.
    async fn come_back(&mut self, control: &Control, is: impl Fn(&Envelope) -> bool) -> Envelope {
        let aud = self.store.trusted()[0];
        let assertion = Assertion { aud, ..self.gateway.assertion(control) };
        let stream = open_watch(control, &assertion.sign(&self.gateway.key).unwrap()).await.unwrap();
        let mut watch = Watch { stream, store: self.store.clone(), base: None, deltas: 0, tokens: Vec::new() };
        let revision = self.store.revision();
        watch.send(&WatchRequest::Hello { revision, version: "1.2.3".to_owned(), instance: None, deltas: false }).await;
        loop {
            match watch.event().await.expect("the watch was closed") {
                WatchEvent::Succession { links } => {
                    self.store.follow(&links);
                }
                WatchEvent::Policy { policy } => {
                    assert!(self.store.accept(&policy).unwrap());
                    watch.send(&WatchRequest::Applied { revision: self.store.revision() }).await;
                    if is(&policy) {
                        return policy;
                    }
                }
                WatchEvent::Heartbeat { .. } => watch.send(&WatchRequest::Heartbeat).await,
                WatchEvent::RelayToken { .. } | WatchEvent::AuditHead { .. } | WatchEvent::RunsTwice(_) => {}
                WatchEvent::Removed | WatchEvent::Delta { .. } => panic!("removed, or what was not asked for"),
            }
        }
    }
}

#[tokio::test]
async fn a_new_key_is_named_before_it_signs_and_who_was_away_comes_back_by_the_old_one() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    let old: GatewayPublicKey = control.ready.policy_key.parse().unwrap();
    let early_code = pair.hospital.code(&pair.hospital.server("late").await).await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy().await;
    let mut away = Survivor { gateway: &pair.lab_gateway, store: PolicyStore::new(pair.lab_gateway.key.public(), old) };
    away.come_back(&control, |_| true).await;

    // Named at once, signing later.
    let keys = control.rotate(json!({"lead_secs": 600})).await;
    assert_eq!(keys.iter().map(|key| key.state).collect::<Vec<_>>(), [PolicyKeyState::Signing, PolicyKeyState::Next]);
    let new: GatewayPublicKey = keys[1].key.parse().unwrap();
    let named = watch.policy_until(|policy| policy.control_keys.len() == 2).await;
    assert_eq!((named.control_keys, named.connections.len()), (vec![old, new], 1));
    assert_eq!(control.as_operator("POST", "/policy-keys/rotate", json!({})).await.status(), 409, "one at a time");
    control.clock.advance(Duration::from_secs(600));
    control.until_signing(&keys[1].key).await;
    let signed = watch.policy_until(|policy| policy.control_keys == [new]).await;
    assert_eq!(signed.connections.len(), 1, "nothing else changed");
    let mut replacement = None;
    while replacement.is_none() {
        let event = watch.event().await.unwrap();
        if let WatchEvent::RelayToken { token } = &event {
            replacement = RelayToken::verify(token, &[new], control.clock.unix_secs()).ok();
        }
    }
    drop(watch);

    // Away for all of it, and for one more rotation: the old key's word leads on.
    let newest = control.rotate(json!({"at_once": true})).await.pop().unwrap();
    control.until_signing(&newest.key).await;
    let newest_key: GatewayPublicKey = newest.key.parse().unwrap();
    let policy = away.come_back(&control, |policy| policy.key == newest_key).await;
    assert_eq!((policy.key, away.store.trusted()), (newest_key, &[newest_key][..]));

    // A code from before works: its key vouches for the one that signs.
    let late = pair.hospital.list::<Server>("/servers").await.into_iter().find(|server| server.name == "late").unwrap();
    let answer = Gateway::new(7).enroll(&control, &early_code.secret).await.unwrap();
    assert_eq!((answer.policy_key, answer.server_id), (newest_key, late.id.to_string()));
    assert!(follow(&[early_code.policy_key], &answer.succession).contains(&newest_key));
    assert_eq!(pair.hospital.code(&pair.hospital_server).await.policy_key, newest_key);

    // Forgotten, the old key names nobody, and vouches for nothing.
    let keys = control.policy_keys().await;
    let path = |key: &str| format!("/policy-keys/{key}");
    let forget = async |key: &str| control.as_operator("DELETE", &path(key), json!({})).await.status();
    assert_eq!(forget(&newest.key).await, 409, "it signs");
    assert_eq!(forget(&"00".repeat(32)).await, 404);
    until("policies are never all signed anew", async || forget(&keys[1].key).await == 204).await;
    assert_eq!(control.policy_keys().await.len(), 1);
    let directory = control.stop().await;
    let control = Control::start_in(directory, "").await;
    assert_eq!(control.ready.policy_key, newest.key, "after a restart, too");
    let stranger = Assertion { aud: old, ..pair_assertion(&control) };
    assert!(open_watch(&control, &stranger.sign(&Gateway::new(1).key).unwrap()).await.is_err());
}

fn pair_assertion(control: &Control) -> Assertion {
    Gateway::new(1).assertion(control)
}

/// Waits until the newest policy of a server is signed with a key.
async fn until_signed(control: &Control, server: ServerId, key: &str) {
    let storage = database::open(control.directory.path()).await;
    let is_signed = async || {
        let policy = storage.read().await.unwrap().policy(server).await.unwrap();
        policy.is_some_and(|row| row.envelope.0.contains(key))
    };
    until("the policy is never signed with the key", is_signed).await;
}

/// One policy cannot be compiled any more; all of them are to be.
const ONE_BROKEN: &[&str] =
    &["UPDATE channels SET engine = 'nowhere'", "UPDATE servers SET stale = TRUE WHERE gateway_key IS NOT NULL"];

#[tokio::test]
async fn a_key_is_kept_for_policies_that_are_signed_with_it_and_for_nothing_else_that_is_to_be_compiled() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    let (hospital, lab) = (pair.hospital_server.id, pair.lab_server.id);
    drop(pair);
    let first = control.ready.policy_key.clone();
    let second = control.rotate(json!({"at_once": true})).await.pop().unwrap().key;
    until_signed(&control, hospital, &second).await;
    until_signed(&control, lab, &second).await;
    let directory = control.stop().await;
    database::execute(directory.path(), ONE_BROKEN);
    let control = Control::start_in(directory, "").await;
    let forget = async |key: &str| {
        let path = format!("/policy-keys/{key}");
        control.as_operator("DELETE", &path, json!({})).await
    };
    assert_eq!(forget(&first).await.status(), 204, "no policy is signed with it");
    let third = control.rotate(json!({"at_once": true})).await.pop().unwrap().key;
    until_signed(&control, hospital, &third).await;
    let refused = forget(&second).await;
    assert_eq!(refused.status(), 409);
    let refused: Value = refused.json().await.unwrap();
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains(&lab.to_string()) && detail.contains(&second), "{detail}");
}

#[tokio::test]
async fn all_replicas_sign_with_a_new_key_from_one_moment_on() {
    let control = Control::start().await;
    let Some(second) = control.replica().await else { return };
    let pair = control.pair().await;
    let mut watch = pair.hospital_gateway.watch(&second).await;
    watch.policy().await;
    let keys = control.rotate(json!({"at_once": true})).await;
    let new: GatewayPublicKey = keys[1].key.parse().unwrap();
    let links = loop {
        match watch.event().await.unwrap() {
            WatchEvent::RelayToken { .. }
            | WatchEvent::AuditHead { .. }
            | WatchEvent::RunsTwice(_)
            | WatchEvent::Heartbeat { .. } => {}
            WatchEvent::Succession { links } => break links,
            event @ (WatchEvent::Policy { .. } | WatchEvent::Delta { .. } | WatchEvent::Removed) => {
                panic!("before it is known whom to trust: {event:?}")
            }
        }
    };
    assert!(watch.store.follow(&links));
    assert_eq!(watch.policy().await.control_keys, [new]);
    // A change made at the other replica is signed with it, too.
    let lab = pair.lab.at(&second);
    let channel = lab.channel(&pair.lab_server, "Orders").await;
    let grant: Value = lab.post("/grants", json!({"agreement_id": pair.agreement, "channel_id": channel.id})).await;
    let path = format!("/grants/{}/approve", grant["id"].as_str().unwrap());
    let _: Value = pair.hospital.at(&second).post(&path, json!({})).await;
    assert_eq!(watch.policy().await.control_keys, [new]);
}

#[tokio::test]
async fn no_seed_is_in_the_storage_in_plain_text_and_none_of_a_retired_key() {
    let control = Control::start().await;
    control.rotate(json!({"at_once": true})).await;
    control.rotate(json!({})).await;
    let stranger = control.organization("Hospital").await;
    for (method, path) in
        [("GET", "/policy-keys"), ("POST", "/policy-keys/rotate"), ("POST", "/platform-tokens/operator/rotate")]
    {
        assert_eq!(stranger.refused(method, path, Some(json!({}))).await.code, "unauthenticated", "{path}");
    }
    let both = json!({"at_once": true, "lead_secs": 60});
    for body in [json!({"lead_secs": 59}), both] {
        let answer = control.as_operator("POST", "/policy-keys/rotate", body).await;
        assert_eq!(answer.status(), 422);
    }
    drop(stranger);
    let directory = control.stop().await;
    let file = std::fs::read_to_string(directory.path().join("data/policy-key")).unwrap();
    let content = database::contents(directory.path());
    assert!(!content.windows(64).any(|window| window == file.trim().as_bytes()));
    database::execute(directory.path(), &["DELETE FROM policy_keys WHERE sealed_seed IS NULL AND state <> 'retired'"]);
    let control = Control::start_in(directory, "").await;
    let states: Vec<_> = control.policy_keys().await.into_iter().map(|key| key.state).collect();
    assert_eq!(states, [PolicyKeyState::Retired, PolicyKeyState::Signing, PolicyKeyState::Next]);
}

#[tokio::test]
async fn a_gateway_that_was_given_revisions_of_a_later_time_is_behind_a_new_key_like_any_other() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let revision = pair.hospital_gateway.watch(&control).await.policy().await.revision;
    // As after an hour in which the clock was ahead: what it has in force is from a later time than the next key.
    let mut watch = pair.hospital_gateway.watch_from(&control, revision + 3_600_000).await;
    let ahead = watch.policy().await.revision;
    let path = format!("/servers/{}", pair.hospital_server.id);
    let confirmed = async || pair.hospital.get::<Server>(&path).await.applied_revision == ahead;
    until("it was never written down", confirmed).await;
    drop(watch);
    let mut other = pair.lab_gateway.watch(&control).await;
    other.policy().await;

    let new = control.rotate(json!({"at_once": true})).await.pop().unwrap();
    assert_eq!(new.gateways_behind, Some(2), "neither has heard of it");
    let new_key: GatewayPublicKey = new.key.parse().unwrap();
    other.policy_until(|policy| policy.control_keys == [new_key]).await;
    let behind = async || control.policy_keys().await.pop().unwrap().gateways_behind;
    until("the one that is away is not counted", async || behind().await == Some(1)).await;
    // It comes back by the old key, and is not behind any more.
    let mut back = pair.hospital_gateway.watch_from(&control, ahead).await;
    back.policy_until(|policy| policy.control_keys == [new_key]).await;
    until("one is counted that has it", async || behind().await == Some(0)).await;
}
