//! A policy that changes a little goes out as what changes, to those that take it and have what it changes in force.

use gateway_proto::{
    api::{
        gateway::{WatchEvent, WatchRequest},
        platform::Server,
    },
    policy::{Policy, PolicyDelta},
};
use serde_json::json;

use crate::harness::{Control, LIMIT, Pair, Watch, until};

/// So many that one more is no large part of the policy.
const CONNECTIONS: usize = 8;

/// A watch of the hospital that has [`CONNECTIONS`] in force, and the control plane knows it.
async fn watch_of_many(control: &Control, pair: &Pair<'_>) -> Watch {
    for n in 0..CONNECTIONS {
        pair.connection(&format!("Orders {n}")).await;
    }
    let mut watch = pair.hospital_gateway.watch_for_deltas(control, None).await;
    watch.policy_until(|policy| policy.connections.len() == CONNECTIONS).await;
    known(pair, watch.store.revision()).await;
    watch
}

async fn server(pair: &Pair<'_>) -> Server {
    pair.hospital.get(&format!("/servers/{}", pair.hospital_server.id)).await
}

/// Waits until the control plane knows that this revision is in force.
async fn known(pair: &Pair<'_>, revision: u64) {
    until("a revision was not confirmed", async || server(pair).await.applied_revision == revision).await;
}

/// The next change of the policy; a whole one must not come.
async fn next_delta(watch: &mut Watch) -> PolicyDelta {
    let wait = async {
        loop {
            match watch.event().await.expect("closed") {
                WatchEvent::Delta { delta } => return delta,
                WatchEvent::Heartbeat { .. } => watch.send(&WatchRequest::Heartbeat).await,
                WatchEvent::Policy { .. } | WatchEvent::Removed => panic!("a whole policy came"),
                WatchEvent::Succession { .. }
                | WatchEvent::RelayToken { .. }
                | WatchEvent::AuditHead { .. }
                | WatchEvent::RunsTwice(_) => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("no change came")
}

fn names(policy: &Policy, endpoint: &str) -> bool {
    policy.connections.iter().any(|entry| entry.endpoint == endpoint)
}

#[tokio::test]
async fn a_gateway_that_takes_changes_gets_them_and_holds_the_policy_that_others_get_whole() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut watch = watch_of_many(&control, &pair).await;
    let id = pair.connection("one more").await;
    let delta = next_delta(&mut watch).await;
    let policy = watch.changed_by(&delta);
    let held = watch.accept(policy).await;
    assert!(names(&held, "one more"));
    known(&pair, held.revision).await;
    // What changes while it is away comes when it is back.
    let left = watch.leave();
    let _: serde_json::Value = pair.lab.post(&format!("/connections/{id}/terminate"), json!({})).await;
    let mut watch = pair.hospital_gateway.watch_for_deltas(&control, Some(left)).await;
    let delta = next_delta(&mut watch).await;
    let policy = watch.changed_by(&delta);
    let held = watch.accept(policy).await;
    assert!(!names(&held, "one more"));
    watch.stays_at(held.revision).await;
    let mut whole = pair.hospital_gateway.watch(&control).await;
    assert_eq!(whole.policy().await, held);
}

#[tokio::test]
async fn a_change_of_what_was_refused_comes_whole_and_of_what_is_only_not_saved_as_a_change() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut watch = watch_of_many(&control, &pair).await;
    for (in_force, endpoint, following) in [(false, "refused", "after it"), (true, "unsaved", "after that")] {
        pair.connection(endpoint).await;
        let delta = next_delta(&mut watch).await;
        let offered = watch.changed_by(&delta);
        let mut store = watch.store.clone();
        assert!(store.accept(&offered).unwrap());
        let (revision, reason) = (store.revision(), endpoint.to_owned());
        if in_force {
            (watch.store, watch.base) = (store, Some(offered));
        }
        watch.send(&WatchRequest::Rejected { revision, reason, in_force }).await;
        let told = async || server(&pair).await.policy_problem.as_deref() == Some(endpoint);
        until("what the gateway said was not written down", told).await;
        pair.connection(following).await;
        let deltas = watch.deltas;
        let policy = watch.policy_until(|policy| names(policy, following)).await;
        assert_eq!(watch.deltas - deltas, u32::from(in_force), "{endpoint}");
        known(&pair, policy.revision).await;
    }
}
