//! The secret of a connection is replaced while both gateways watch.

use std::{collections::BTreeSet, time::Duration};

use gateway_proto::{
    api::platform::{AuditEntry, Connection},
    id::ConnectionId,
    peering::ConnectionStatus,
    policy::{ConnectionSecret, Policy, Secret},
};
use serde_json::{Value, json};

use super::harness::{Control, Pair, Watch};

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
    pair.lab.until(&id, "active", |connection| connection.status == ConnectionStatus::Active).await;
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
