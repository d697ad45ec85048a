//! A policy that changes a little goes out as what changes, to those that take it and have what it changes in force.

use gateway_proto::api::gateway::{WatchEvent, WatchRequest};

use crate::harness::{Control, Pair};

/// A watch of the hospital that has this many connections in force.
const CONNECTIONS: usize = 8;

async fn some_connections(pair: &Pair<'_>) {
    for n in 0..CONNECTIONS {
        pair.connection(&format!("Orders {n}")).await;
    }
}

#[tokio::test]
async fn a_gateway_that_takes_changes_gets_them_and_holds_the_policy_that_others_get_whole() {
    let control = Control::start().await;
    let pair = control.pair().await;
    some_connections(&pair).await;
    let mut watch = pair.hospital_gateway.watch_for_deltas(&control, None).await;
    watch.policy_until(|policy| policy.connections.len() == CONNECTIONS).await;
    let before = watch.deltas;
    let id = pair.connection("one more").await;
    let held = watch.policy_until(|policy| policy.connections.len() == CONNECTIONS + 1).await;
    assert!(watch.deltas > before, "nothing came as what changes");
    assert!(held.connection(id.parse().unwrap()).is_some());
    // What changes while it is away comes when it is back.
    let ended = format!("/connections/{id}/terminate");
    watch.stays_at(held.revision).await;
    let _: serde_json::Value = pair.lab.post(&ended, serde_json::json!({})).await;
    let mut watch = pair.hospital_gateway.watch_for_deltas(&control, Some(watch)).await;
    let held = watch.policy_until(|policy| policy.connections.len() == CONNECTIONS).await;
    assert_eq!(watch.deltas, 1);
    watch.stays_at(held.revision).await;
    // Another gateway of the same place would get this.
    let mut whole = pair.hospital_gateway.watch(&control).await;
    assert_eq!(whole.policy().await, held);
    assert_eq!(whole.deltas, 0);
}

#[tokio::test]
async fn nothing_is_built_on_a_policy_that_was_refused_or_is_not_confirmed() {
    let control = Control::start().await;
    let pair = control.pair().await;
    some_connections(&pair).await;
    let mut watch = pair.hospital_gateway.watch_for_deltas(&control, None).await;
    watch.policy_until(|policy| policy.connections.len() == CONNECTIONS).await;
    let before = watch.store.revision();
    pair.connection("refused").await;
    loop {
        match watch.event().await.expect("closed") {
            WatchEvent::Delta { delta } if delta.from == before => break,
            WatchEvent::Heartbeat { .. } => watch.send(&WatchRequest::Heartbeat).await,
            WatchEvent::Delta { .. } | WatchEvent::Removed => panic!("not made from what is in force here"),
            WatchEvent::Policy { .. }
            | WatchEvent::Succession { .. }
            | WatchEvent::RelayToken { .. }
            | WatchEvent::AuditHead { .. }
            | WatchEvent::RunsTwice(_) => {}
        }
    }
    let revision = before + 1;
    watch.send(&WatchRequest::Rejected { revision, reason: "a test refuses it".to_owned(), in_force: false }).await;
    pair.connection("the next").await;
    // Made from one that is not in force here: so it comes whole.
    let policy = watch.policy_until(|policy| policy.connections.iter().any(|entry| entry.endpoint == "the next")).await;
    assert!(policy.revision > before);
}
