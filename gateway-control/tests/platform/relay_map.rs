//! The relay map as its operator changes it: the relay is in it all the while, and every policy says what is said now.

use gateway_proto::{
    api::{
        Page,
        platform::{AuditEntry, Relay},
    },
    id::RelayId,
};
use serde_json::{Value, json};

use super::harness::Control;

/// Two relays in the map.
async fn two_relays(control: &Control) -> [RelayId; 2] {
    let ids = [7, 8].map(|n| RelayId::new(1, [n; 10]));
    for (id, name) in ids.into_iter().zip(["one", "two"]) {
        let (url, stun) = (format!("wss://{name}.example:443/relay"), [format!("{name}.example:3478")]);
        let body = json!({"id": id, "name": name, "url": url, "tls_pin": "ab".repeat(32), "stun": stun});
        assert_eq!(control.as_operator("POST", "/relays", body).await.status(), 201);
    }
    ids
}

#[tokio::test]
async fn a_relay_that_moves_or_gets_a_new_key_keeps_its_id_and_is_missing_from_no_policy() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let relays = two_relays(&control).await;
    let path = format!("/relays/{}", relays[0]);
    let (mut hospital, mut lab) = pair.watches().await;
    for watch in [&mut hospital, &mut lab] {
        watch.policy_until(|policy| policy.relays.len() == 2).await;
    }
    let change = json!({
        "url": "wss://moved.example:8443/relay", "tls_pin": "cd".repeat(32),
        "stun": ["moved.example:3478", "moved.example:3479"],
    });
    let changed: Relay = control.as_operator("PATCH", &path, change).await.json().await.unwrap();
    assert_eq!((changed.id, changed.name.as_str()), (relays[0], "one"));
    let mut revision = 0;
    for watch in [&mut hospital, &mut lab] {
        let policy = watch.policy().await;
        assert_eq!(policy.relays.iter().map(|entry| entry.id).collect::<Vec<_>>(), relays);
        let entry = &policy.relays[0];
        assert_eq!((entry.url.as_str(), entry.stun.len()), ("wss://moved.example:8443/relay", 2));
        assert_eq!(entry.tls_pin, Some("cd".repeat(32)));
        revision = policy.revision;
    }
    // What people call it is in no policy.
    let renamed: Relay = control.as_operator("PATCH", &path, json!({"name": "uno"})).await.json().await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.url), ("uno", changed.url));
    lab.stays_at(revision).await;
    let public: Relay =
        control.as_operator("PATCH", &path, json!({"tls_pin": "", "stun": []})).await.json().await.unwrap();
    assert!(public.tls_pin.is_none() && public.stun.is_empty());
    assert_eq!(lab.policy().await.relays[0].tls_pin, None);

    let log = control.request("GET", "/api/v1/platform/audit?act=relay.update");
    let log = log.header("authorization", format!("Operator {}", control.operator)).send().await.unwrap();
    let mut details: Vec<_> =
        log.json::<Page<AuditEntry>>().await.unwrap().items.into_iter().map(|entry| entry.detail).collect();
    details.reverse();
    let (old, new) = ("ab".repeat(32), "cd".repeat(32));
    let moved = format!(
        "url: wss://one.example/relay → wss://moved.example:8443/relay; tls_pin: {old} → {new}; \
         stun: one.example:3478 → moved.example:3478, moved.example:3479"
    );
    let unpinned = format!("tls_pin: {new} → none; stun: moved.example:3478, moved.example:3479 → ");
    assert_eq!(details, [moved, "name: one → uno".to_owned(), unpinned]);
}

#[tokio::test]
async fn a_relay_is_not_changed_into_another_one_nor_by_somebody_else_nor_against_its_condition() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let [one, _] = two_relays(&control).await;
    let path = format!("/relays/{one}");
    for (body, status) in [
        (json!({"url": "wss://two.example/relay"}), 409),
        (json!({"url": "https://one.example/relay"}), 422),
        (json!({"url": "wss://one.example/elsewhere"}), 422),
        (json!({"tls_pin": "xy"}), 422),
        (json!({"stun": ["a:1", "b:2", "c:3", "d:4", "e:5"]}), 422),
        (json!({"stun": ["one.example"]}), 422),
        (json!({"id": RelayId::new(1, [9; 10])}), 422),
    ] {
        assert_eq!(control.as_operator("PATCH", &path, body.clone()).await.status(), status, "{body}");
    }
    assert_eq!(hospital.send("PATCH", &path, Some(json!({"name": "x"}))).await.status(), 401);
    let unknown = format!("/relays/{}", RelayId::new(1, [9; 10]));
    assert_eq!(control.as_operator("PATCH", &unknown, json!({"name": "x"})).await.status(), 404);
    assert_eq!(hospital.send("GET", &unknown, None).await.status(), 404);

    let seen = hospital.send("GET", &path, None).await;
    let tag = seen.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(seen.json::<Relay>().await.unwrap().url, "wss://one.example/relay");
    let rename = async |name: &str, tag: &str| {
        let request = control.request("PATCH", &format!("/api/v1{path}")).json(&json!({"name": name}));
        let operator = format!("Operator {}", control.operator);
        let answer = request.header("authorization", operator).header("if-match", tag).send().await.unwrap();
        let next = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), next, answer.json::<Value>().await.unwrap())
    };
    let (status, next, _) = rename("uno", &tag).await;
    assert_eq!(status, 200);
    let (status, _, problem) = rename("eins", &tag).await;
    assert_eq!((status, problem["code"].as_str()), (412, Some("changed")));
    assert_eq!(rename("eins", &next.unwrap()).await.0, 200);
}
