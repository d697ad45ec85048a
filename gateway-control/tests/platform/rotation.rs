//! The secret of a connection is replaced while both gateways watch.

use std::{collections::BTreeSet, time::Duration};

use gateway_proto::{
    api::platform::{AuditEntry, Connection, Server},
    id::ConnectionId,
    peering::ConnectionStatus,
    policy::{Activation, ConnectionSecret, Policy, Secret},
};
use serde_json::{Value, json};

use super::harness::{Control, Pair, Watch, until};

const HALF: u64 = 1_800;

/// What a policy says of the secrets of a connection.
fn secrets(policy: &Policy, id: ConnectionId) -> Vec<ConnectionSecret> {
    policy.connection(id).map(|entry| entry.secrets.clone()).unwrap_or_default()
}

fn one(secret: &Secret, until: Option<u64>) -> ConnectionSecret {
    ConnectionSecret { secret: secret.clone(), until }
}

/// An active connection from the hospital to the lab, its secret, and the watches of both.
async fn active(pair: &Pair<'_>) -> (ConnectionId, Secret, (Watch, Watch)) {
    let id = pair.connection("Orders").await;
    let (mut sender, mut listener) = pair.watches().await;
    let connection = id.parse().unwrap();
    let first = secrets(&sender.policy().await, connection);
    listener.policy().await;
    let is_active = |policy: &Policy| policy.connection(connection).is_some_and(|c| c.activation == Activation::Active);
    sender.policy_until(is_active).await;
    listener.policy_until(is_active).await;
    let follow = |shown: &Connection| shown.sender.policy_in_force && shown.listener.policy_in_force;
    pair.lab.until(&id, "active in force", |c| c.status == ConnectionStatus::Active && follow(c)).await;
    assert_eq!(first.len(), 1);
    (connection, first[0].secret.clone(), (sender, listener))
}

/// What the reconciler does once it can believe the clock.
async fn reconcile(control: &Control) {
    while control.service.expire_overdue(&mut BTreeSet::new()).await.unwrap() {}
}

#[tokio::test]
async fn the_old_secret_is_accepted_for_the_overlap_and_the_sender_turns_in_the_middle() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (id, old, (mut sender, mut listener)) = active(&pair).await;
    let path = format!("/connections/{id}/rotate-secret");
    let rotated: Connection = pair.hospital.post(&path, json!({"overlap_secs": 2 * HALF})).await;
    let rotation = rotated.secret_rotation.clone().unwrap();
    assert_eq!((rotated.status, rotation.old_until - rotation.new_from), (ConnectionStatus::Active, HALF));
    let are = |count: usize| move |policy: &Policy| secrets(policy, id).len() == count;
    let at_sender = secrets(&sender.policy_until(are(2)).await, id);
    let new = at_sender[1].secret.clone();
    assert_ne!(old, new);
    assert_eq!(at_sender, [one(&old, Some(rotation.new_from)), one(&new, None)]);
    let at_listener = secrets(&listener.policy_until(are(2)).await, id);
    assert_eq!(at_listener, [one(&new, None), one(&old, Some(rotation.old_until))]);

    assert_eq!(pair.lab.refused("POST", &path, Some(json!({}))).await.code, "wrong_state", "one at a time");
    let unsound = [
        json!({"overlap_secs": 59}),
        json!({"overlap_secs": 60 * 24 * 3600 + 1}),
        json!({"overlap_secs": 60, "at_once": true}),
        json!({"overlap": 60}),
    ];
    for body in unsound {
        assert_eq!(pair.lab.refused("POST", &path, Some(body.clone())).await.code, "invalid", "{body}");
    }

    control.clock.advance(Duration::from_secs(HALF));
    reconcile(&control).await;
    assert_eq!(secrets(&sender.policy_until(are(1)).await, id), [one(&new, None)]);
    assert_eq!(pair.lab.connection(&id.to_string()).await.secret_rotation, Some(rotation), "the listener takes both");
    control.clock.advance(Duration::from_secs(HALF));
    assert_eq!(pair.lab.connection(&id.to_string()).await.secret_rotation, None, "the time is over at once");
    reconcile(&control).await;
    assert_eq!(secrets(&listener.policy_until(are(1)).await, id), [one(&new, None)]);

    let mut told = serde_json::to_string(&rotated).unwrap();
    for org in [&pair.hospital, &pair.lab] {
        let log: Vec<AuditEntry> = org.list("/audit").await;
        let by = pair.hospital.session.user.email.as_str();
        for (act, actor) in [("connection.rotate_secret", by), ("connection.retire_secret", "system")] {
            let entries: Vec<_> = log.iter().filter(|entry| entry.act == act).collect();
            assert!(entries.len() == 1 && entries[0].object == id.to_string(), "{act}: {entries:?}");
            assert!(entries[0].actor == actor || org.id != pair.hospital.id, "{:?}", entries[0]);
        }
        told += &serde_json::to_string(&log).unwrap();
    }
    for secret in [old, new] {
        assert!(!told.contains(json!(secret).as_str().unwrap()), "no answer and no entry holds a secret");
    }
}

#[tokio::test]
async fn an_overlap_that_an_end_could_miss_is_only_for_gateways_that_follow_now() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (id, _, (mut sender, mut listener)) = active(&pair).await;
    let rotate = format!("/connections/{id}/rotate-secret");
    let short = async || pair.hospital.refused("POST", &rotate, Some(json!({"overlap_secs": 60}))).await;
    // Policies that nobody has confirmed yet.
    pair.connection("Results").await;
    let refused = short().await;
    assert!(refused.code == "wrong_state" && refused.detail.contains("newest policy"), "{refused:?}");
    for watch in [&mut sender, &mut listener] {
        watch.stream.close(None).await.unwrap();
        while watch.event().await.is_some() {}
    }
    let path = format!("/servers/{}", pair.hospital_server.id);
    until("the sender watches for ever", async || !pair.hospital.get::<Server>(&path).await.online).await;
    let refused = short().await;
    assert!(refused.code == "wrong_state" && refused.detail.contains("out of reach"), "{refused:?}");
    assert!(refused.detail.contains("overlap_secs"), "what to do: {refused:?}");
    let rotated: Connection = pair.hospital.post(&rotate, json!({})).await;
    assert!(rotated.secret_rotation.is_some(), "whoever is away has its time");
}

#[tokio::test]
async fn a_secret_that_became_known_is_replaced_at_once_also_in_the_middle_of_a_rotation() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (id, first, (mut sender, mut listener)) = active(&pair).await;
    let path = format!("/connections/{id}");
    let rotate = format!("{path}/rotate-secret");
    let rotated: Connection = pair.lab.post(&rotate, json!({})).await;
    let rotation = rotated.secret_rotation.unwrap();
    let budget = rotation.old_until - rotation.new_from;
    assert_eq!(
        budget,
        72 * 3600,
        "each half is the staleness budget: by then, who has not heard of it carries nothing"
    );
    let both = secrets(&sender.policy_until(|policy| secrets(policy, id).len() == 2).await, id);
    let replaced: Connection = pair.hospital.post(&rotate, json!({"at_once": true})).await;
    assert_eq!(replaced.secret_rotation, None);
    let is_third = |policy: &Policy| {
        let secrets = secrets(policy, id);
        secrets.len() == 1 && secrets[0].secret != first && !both.contains(&secrets[0])
    };
    let third = secrets(&sender.policy_until(is_third).await, id);
    assert_eq!(secrets(&listener.policy_until(is_third).await, id), third);
    // Nothing is left for the time to do.
    control.clock.advance(Duration::from_secs(2 * budget));
    reconcile(&control).await;
    let lab = pair.lab.sign_in().await;
    let log: Vec<AuditEntry> = lab.list("/audit?act=connection.retire_secret").await;
    assert!(log.is_empty(), "{log:?}");
    let _: Value = lab.post(&format!("{path}/terminate"), json!({})).await;
    assert_eq!(
        lab.refused("POST", &rotate, Some(json!({}))).await.code,
        "wrong_state",
        "nobody has its secret any more"
    );
}
