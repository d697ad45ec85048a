//! Whose a key is: a user's, the operator's, or nobody's.

use gateway_proto::api::{Page, platform::AuditEntry};
use serde_json::{Value, json};

use super::super::harness::Control;

/// What the operator asks for with a key: status, whether it was answered before, and the answer.
async fn by_operator(control: &Control, method: &str, path: &str, key: &str, body: Value) -> (u16, bool, Value) {
    let request = control.request(method, &format!("/api/v1{path}")).header("idempotency-key", key).json(&body);
    let request = request.header("authorization", format!("Operator {}", control.operator));
    let answer = request.send().await.unwrap();
    let is_replayed = answer.headers().contains_key("idempotency-replayed");
    (answer.status().as_u16(), is_replayed, answer.json().await.unwrap_or_default())
}

/// How often the log of the platform has an act.
async fn times(control: &Control, act: &str) -> usize {
    let answer = control.as_operator("GET", "/platform/audit?limit=200", json!({})).await;
    let log = answer.json::<Page<AuditEntry>>().await.unwrap().items;
    log.iter().filter(|entry| entry.act == act).count()
}

#[tokio::test]
async fn a_request_of_the_operator_sent_twice_with_one_key_is_done_once() {
    let control = Control::start().await;
    let id = "rly_00000000000070008000000000000000";
    let (relay, at) = (json!({"id": id, "name": "North", "url": "wss://north.example/relay"}), format!("/relays/{id}"));
    let tier = json!({"max_servers": 1, "admin_read_write": false});
    for (method, path, body, act) in [
        ("POST", "/token-keys/rotate", json!({"at_once": true}), "token_key.rotate"),
        ("POST", "/policy-keys/rotate", json!({"lead_secs": 3_600}), "policy_key.rotate"),
        ("PUT", "/tiers/small", tier, "tier.put"),
        ("POST", "/relays", relay, "relay.create"),
        ("PATCH", at.as_str(), json!({"name": "South"}), "relay.update"),
        ("DELETE", at.as_str(), json!({}), "relay.delete"),
    ] {
        let key = format!("{method}{path}");
        let first = by_operator(&control, method, path, &key, body.clone()).await;
        assert!((200..300).contains(&first.0) && !first.1, "{method} {path}: {first:?}");
        let other = by_operator(&control, method, path, &key, json!({"another": "body"})).await;
        assert_eq!((other.0, other.2["code"].as_str()), (409, Some("idempotency_key")), "{method} {path}");
        let again = by_operator(&control, method, path, &key, body).await;
        assert_eq!((again.0, again.1, &again.2), (first.0, true, &first.2), "{method} {path}");
        assert_eq!(times(&control, act).await, 1, "{act}");
    }
}

#[tokio::test]
async fn a_token_of_the_platform_is_made_once_for_one_key_and_shown_once() {
    let control = Control::start().await;
    let rotate = "/platform-tokens/registration/rotate";
    let first = by_operator(&control, "POST", rotate, "k", json!({})).await;
    assert_eq!(first.0, 200);
    let again = by_operator(&control, "POST", rotate, "k", json!({})).await;
    assert_eq!((again.0, again.2["code"].as_str()), (409, Some("idempotency_key")), "a secret is not kept");
    assert_eq!(times(&control, "platform_token.rotate").await, 1);
    // A user's key of the same name is another one.
    let hospital = control.organization("Hospital").await;
    let request = control.request("POST", "/api/v1/servers").bearer_auth(&hospital.token);
    let made = request.header("idempotency-key", "k").json(&json!({"name": "main"})).send().await.unwrap();
    assert_eq!(made.status(), 201);
    // What was refused was not done: the same key may be tried again.
    for (servers, status) in [(json!("none"), 422), (json!(1), 200)] {
        let tier = json!({"max_servers": servers, "admin_read_write": false});
        assert_eq!(by_operator(&control, "PUT", "/tiers/small", "t", tier).await.0, status);
    }
}

#[tokio::test]
async fn a_key_that_nobody_can_hold_is_refused_and_nothing_is_done() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let refused = async |method: &str, path: &str, authorization: &str, body: &Value| {
        let request = control.request(method, path).header("idempotency-key", "k").json(body);
        let answer = request.header("authorization", authorization).send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((status, problem["code"].as_str()), (422, Some("key_not_kept")), "{method} {path} {problem}");
    };
    let login = json!({"email": hospital.session.user.email, "password": "correct horse battery"});
    let signed_in = format!("Bearer {}", hospital.token);
    refused("POST", "/api/v1/sessions", &signed_in, &login).await;
    let log: Vec<AuditEntry> = hospital.list("/audit").await;
    assert!(log.iter().all(|entry| entry.act != "session.create"), "nobody signed in: {log:?}");
    for authorization in [signed_in.as_str(), "Gateway x"] {
        refused("POST", "/api/v1/device-tokens/introspect", authorization, &json!({"token": "x"})).await;
    }
    // Whatever is for everybody, today and tomorrow.
    let document: Value = serde_json::from_str(&gateway_control::http::document()).unwrap();
    let mut public = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let for_all = operation["security"].as_array().is_some_and(|ways| ways.iter().all(|way| *way == json!({})));
            if method != "get" && for_all {
                public += 1;
                refused(&method.to_uppercase(), path, "", &json!({})).await;
            }
        }
    }
    assert!(public >= 6, "{public}");
    // Who asks for what is for others is told that, with or without a key.
    let answer = by_operator(&control, "POST", "/servers", "k", json!({"name": "main"})).await;
    assert_eq!(answer.0, 401, "{answer:?}");
}
