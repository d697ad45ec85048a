//! What every mutating request keeps to: sent twice it is done once, on a condition it is done only if the condition holds,
//! and what it changed is written down.

mod held;

use std::time::Duration;

use gateway_proto::{
    api::platform::{AuditEntry, Server, Tier, Usage},
    peering::ConnectionStatus,
};
use serde_json::{Value, json};

use super::harness::{Control, Org};

async fn keyed(org: &Org<'_>, path: &str, key: &str, body: Value) -> (u16, bool, Value) {
    let request = org.control.request("POST", &format!("/api/v1{path}")).bearer_auth(&org.token);
    let answer = request.header("idempotency-key", key).json(&body).send().await.unwrap();
    let replayed = answer.headers().contains_key("idempotency-replayed");
    (answer.status().as_u16(), replayed, answer.json().await.unwrap())
}

#[tokio::test]
async fn a_request_sent_twice_with_one_key_is_done_once() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let first = keyed(&hospital, "/servers", "k1", json!({"name": "main"})).await;
    assert_eq!((first.0, first.1), (201, false));
    let again = keyed(&hospital, "/servers", "k1", json!({"name": "main"})).await;
    assert_eq!((again.0, again.1, &again.2), (201, true, &first.2));
    assert_eq!(hospital.list::<Server>("/servers").await.len(), 1);
    // Another body, or another path, is another request.
    for (path, body) in [("/servers", json!({"name": "other"})), ("/channels", json!({"name": "main"}))] {
        let refused = keyed(&hospital, path, "k1", body).await;
        assert_eq!((refused.0, refused.2["code"].as_str()), (409, Some("idempotency_key")), "{path}");
    }
    // The key is the user's own: somebody else's is another one.
    assert_eq!(keyed(&lab, "/servers", "k1", json!({"name": "main"})).await.0, 201);
    // What was refused was not done: the same key may be tried again.
    assert_eq!(keyed(&hospital, "/servers", "k2", json!({"name": ""})).await.0, 422);
    assert_eq!(keyed(&hospital, "/servers", "k2", json!({"name": "second"})).await.0, 201);
    // A secret is shown once, also to whoever asks twice.
    let path = format!("/servers/{}/enrollment-codes", first.2["id"].as_str().unwrap());
    assert_eq!(keyed(&hospital, &path, "k3", json!({})).await.0, 201);
    assert_eq!(keyed(&hospital, &path, "k3", json!({})).await.2["code"], "idempotency_key");
    control.clock.advance(Duration::from_secs(24 * 3600 + 1));
    let hospital = hospital.sign_in().await;
    assert_eq!(keyed(&hospital, "/servers", "", json!({"name": "x"})).await.0, 422, "an empty key is a mistake");
}

#[tokio::test]
async fn of_two_requests_with_one_key_at_the_same_time_one_is_done() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let send = || keyed(&hospital, "/servers", "k", json!({"name": "main"}));
    let (a, b, c, d) = tokio::join!(send(), send(), send(), send());
    for (status, _, body) in [a, b, c, d] {
        assert!(status == 201 || body["code"] == "idempotency_key", "{status} {body}");
    }
    assert_eq!(hospital.list::<Server>("/servers").await.len(), 1);
}

#[tokio::test]
async fn a_change_on_a_condition_is_made_only_if_nobody_else_made_one() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let path = format!("/connections/{id}");
    let seen = pair.lab.send("GET", &path, None).await;
    let tag = seen.headers()["etag"].to_str().unwrap().to_owned();
    let act = async |verb: &str, tag: &str| {
        let request = control.request("POST", &format!("/api/v1{path}/{verb}")).bearer_auth(&pair.lab.token);
        let answer = request.header("if-match", tag).send().await.unwrap();
        let next = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), next, answer.json::<Value>().await.unwrap())
    };
    let (status, next, _) = act("activate", &tag).await;
    assert_eq!(status, 200);
    let next = next.unwrap();
    assert_ne!(next, tag);
    let _: Value = pair.hospital.post(&format!("{path}/pause"), json!({})).await;
    for tag in [&tag, &next] {
        let (status, _, problem) = act("terminate", tag).await;
        assert_eq!((status, problem["code"].as_str()), (412, Some("changed")));
    }
    assert_eq!(pair.lab.connection(&id).await.status, ConnectionStatus::Paused);
    let tag = pair.lab.send("GET", &path, None).await.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(act("terminate", &format!("\"x\", {tag}")).await.0, 200);

    let server = pair.lab.send("GET", &format!("/servers/{}", pair.lab_server.id), None).await;
    let tag = server.headers()["etag"].to_str().unwrap().to_owned();
    let delete = async |tag: &str| {
        let url = format!("/api/v1/servers/{}", pair.lab_server.id);
        let request = control.request("DELETE", &url).bearer_auth(&pair.lab.token).header("if-match", tag);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((delete("\"stale\"").await, delete(&tag).await), (412, 204));
}

#[tokio::test]
async fn the_audit_log_says_what_was_changed_from_what_to_what() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let _: Value = pair.lab.post(&format!("/connections/{id}/activate"), json!({})).await;
    let channels: Vec<Value> = pair.lab.list("/channels").await;
    let path = format!("/channels/{}", channels[0]["id"].as_str().unwrap());
    let body = json!({"engine": "127.0.0.1:6662"});
    assert_eq!(pair.lab.send("PATCH", &path, Some(body)).await.status(), 200);
    let login = json!({"email": "owner@lab.example", "password": "wrong"});
    for _ in 0..3 {
        assert_eq!(control.request("POST", "/api/v1/sessions").json(&login).send().await.unwrap().status(), 401);
    }
    let refusals = |log: &[AuditEntry]| log.iter().filter(|entry| entry.act == "session.refuse").count();
    // They are written beside the answers.
    let written = async {
        loop {
            let log: Vec<AuditEntry> = pair.lab.list("/audit").await;
            if refusals(&log) == 3 {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let log = tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
    let detail = |act: &str| log.iter().find(|entry| entry.act == act).map(|entry| entry.detail.as_str());
    assert_eq!(detail("connection.activate"), Some("status: ready → active"));
    assert_eq!(detail("channel.update"), Some("engine: 127.0.0.1:6661 → 127.0.0.1:6662"));
    let other: Vec<AuditEntry> = pair.hospital.list("/audit").await;
    let text = format!("{other:?}");
    assert!(!text.contains("6662"), "where an engine listens is its owner's only");
    let lab = other.iter().find(|entry| entry.act == "connection.activate").unwrap();
    assert_eq!((lab.actor.as_str(), lab.request_id.as_str()), ("organization Lab", ""));
}

#[tokio::test]
async fn a_tier_stops_what_is_new_and_shows_what_is_above_it() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let operator = |method: &str, path: &str| {
        let token = format!("Operator {}", control.operator);
        control.request(method, &format!("/api/v1{path}")).header("authorization", token)
    };
    let assign = async |org: &Org<'_>, tier: &str| {
        let path = format!("/organizations/{}/tier", org.id);
        operator("PUT", &path).json(&json!({"tier": tier})).send().await.unwrap().status().as_u16()
    };
    // A self-hosted platform limits nobody until its operator says so.
    for name in ["a", "b", "c"] {
        hospital.server(name).await;
    }
    assert_eq!((assign(&hospital, "none").await, assign(&hospital, "free").await), (404, 204));
    let usage: Usage = hospital.get("/organization/usage").await;
    assert_eq!(
        (usage.tier.name.as_str(), usage.servers.used, usage.servers.limit, usage.servers.surplus),
        ("free", 3, Some(2), 1)
    );
    assert_eq!(hospital.list::<Server>("/servers").await.len(), 3, "nothing is deleted");
    let problem = hospital.refused("POST", "/servers", Some(json!({"name": "d"}))).await;
    assert_eq!((problem.code.as_str(), problem.status), ("tier_limit", 409));
    // Read-write admin access and operator shares begin with Standard.
    let agreement = hospital.agree_with(&lab).await;
    let servers: Vec<Server> = hospital.list("/servers").await;
    let offer = json!({"agreement_id": agreement, "server_id": servers[0].id, "access": "read_write"});
    let share = json!({"agreement_id": agreement, "server_id": servers[0].id, "level": "operator"});
    assert_eq!(hospital.refused("POST", "/admin-connections", Some(offer.clone())).await.code, "tier_limit");
    assert_eq!(hospital.refused("POST", "/server-shares", Some(share.clone())).await.code, "tier_limit");
    // Channels per server, and peers of both sides.
    for name in ["1", "2", "3", "4", "5"] {
        hospital.channel(&servers[0], name).await;
    }
    let body = json!({"server_id": servers[0].id, "name": "6", "engine": "127.0.0.1:1"});
    assert_eq!(hospital.refused("POST", "/channels", Some(body.clone())).await.code, "tier_limit");
    let small = json!({"max_peers": 1, "admin_read_write": false});
    assert_eq!(operator("PUT", "/tiers/small").json(&small).send().await.unwrap().status(), 200);
    assert_eq!(assign(&lab, "small").await, 204);
    let clinic = control.organization("Clinic").await;
    let ask = json!({"organization_id": lab.id});
    let request: Value = clinic.post("/peering-requests", ask.clone()).await;
    let path = format!("/peering-requests/{}/accept", request["id"].as_str().unwrap());
    assert_eq!(lab.refused("POST", &path, Some(json!({}))).await.code, "tier_limit");
    assert_eq!(assign(&lab, "standard").await, 204);
    let _: Value = lab.post(&path, json!({})).await;
    assert_eq!(assign(&hospital, "standard").await, 204);
    let _: Value = hospital.post("/admin-connections", offer).await;
    let _: Value = hospital.post("/server-shares", share).await;
    let _: Value = hospital.post("/channels", body).await;
    // Tiers are the operator's.
    for (method, path) in [("PUT", "/tiers/free".to_owned()), ("PUT", format!("/organizations/{}/tier", hospital.id))] {
        assert_eq!(hospital.refused(method, &path, Some(json!({"tier": "enterprise"}))).await.code, "unauthenticated");
    }
    assert_eq!(hospital.refused("GET", "/organizations", None).await.code, "unauthenticated");
    let gone = control.organization("Gone").await;
    assert_eq!(gone.send("DELETE", "/organization", None).await.status(), 204);
    assert_eq!(assign(&gone, "free").await, 404, "nobody is in no tier");
    let refused = operator("PUT", "/tiers/enterprise").json(&json!({"admin_read_write": true})).send().await.unwrap();
    assert_eq!(refused.status(), 409, "new organizations need a tier to begin with");
}

#[tokio::test]
async fn what_the_tier_of_the_other_organization_does_not_allow_is_refused_without_its_name() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let operator = async |path: &str, body: Value| {
        let request = control.request("PUT", &format!("/api/v1{path}")).json(&body);
        let request = request.header("authorization", format!("Operator {}", control.operator));
        assert!(request.send().await.unwrap().status().is_success(), "{path}");
    };
    let offer = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "access": "read_write"});
    let share = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": "operator"});
    let offered: Value = pair.lab.post("/admin-connections", offer.clone()).await;
    let shared: Value = pair.lab.post("/server-shares", share).await;
    operator("/tiers/secret-plan", json!({"admin_read_write": false})).await;
    operator(&format!("/organizations/{}/tier", pair.lab.id), json!({"tier": "secret-plan"})).await;
    let id = |of: &Value| of["id"].as_str().unwrap().to_owned();
    for path in [format!("/connections/{}/accept", id(&offered)), format!("/server-shares/{}/open", id(&shared))] {
        let refused = pair.hospital.refused("POST", &path, Some(json!({}))).await;
        assert_eq!(refused.code, "tier_limit", "{path}");
        assert!(!refused.detail.contains("secret-plan"), "{path}: {}", refused.detail);
    }
    // Its owner is told which one it is.
    let refused = pair.lab.refused("POST", "/admin-connections", Some(offer)).await;
    assert!(refused.detail.contains("secret-plan"), "{}", refused.detail);
}

#[tokio::test]
async fn a_tier_keeps_the_limits_that_a_request_from_before_does_not_know() {
    let control = Control::start().await;
    let put = async |name: &str, body: Value| -> (Option<u32>, Option<u32>, Option<u32>) {
        let token = format!("Operator {}", control.operator);
        let request = control.request("PUT", &format!("/api/v1/tiers/{name}")).header("authorization", token);
        let answer = request.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let tier: Tier = answer.json().await.unwrap();
        (tier.max_servers, tier.max_grants_per_channel, tier.max_connections_per_server)
    };
    let old = json!({"max_servers": 3, "max_peers": 5, "max_channels_per_server": 5, "admin_read_write": false});
    assert_eq!(put("free", old.clone()).await, (Some(3), Some(50), Some(100)));
    let one = json!({"max_grants_per_channel": 60, "admin_read_write": false});
    assert_eq!(put("free", one).await, (None, Some(60), Some(100)), "the older limits are all said, as ever");
    assert_eq!(put("new", old).await, (Some(3), None, None));
}

#[tokio::test]
async fn peering_requests_in_vain_have_an_end() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let ask = json!({"organization_id": lab.id});
    for _ in 0..5 {
        let request: Value = hospital.post("/peering-requests", ask.clone()).await;
        let path = format!("/peering-requests/{}/withdraw", request["id"].as_str().unwrap());
        let _: Value = hospital.post(&path, json!({})).await;
    }
    let answer = hospital.send("POST", "/peering-requests", Some(ask.clone())).await;
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (429, true));
    // The other side is not held back by it, and time heals.
    lab.agree_with(&hospital).await;
    control.clock.advance(Duration::from_secs(14 * 24 * 3600));
    let hospital = hospital.sign_in().await;
    assert_eq!(hospital.refused("POST", "/peering-requests", Some(ask)).await.code, "conflict", "peers by now");
}

/// Sends a request again and again, until it is refused because there were too many.
async fn until_limited(org: &Org<'_>, method: &str, path: &str, body: impl Fn(usize) -> Value) {
    for n in 0..1_000 {
        if org.send(method, path, Some(body(n))).await.status() == 429 {
            return;
        }
    }
    panic!("{method} {path} was never refused");
}

#[tokio::test]
async fn what_a_partner_is_told_has_a_rate_and_what_takes_access_away_is_never_refused() {
    let control = Control::start_with("[limits]\nrequests_per_second = 100000\n").await;
    let pair = control.pair().await;
    let lab = &pair.lab;
    pair.connection("Orders").await;
    let granted: Vec<Value> = lab.list("/grants").await;
    let channel = format!("/channels/{}", granted[0]["channel_id"].as_str().unwrap());
    let other = lab.channel(&pair.lab_server, "Results").await;
    let offer = json!({"agreement_id": pair.agreement, "channel_id": other.id});
    let offered: Value = lab.post("/grants", offer.clone()).await;
    until_limited(lab, "POST", "/grants", |_| offer.clone()).await;
    until_limited(lab, "PATCH", &channel, |n| json!({"public_name": format!("Orders {n}")})).await;
    // What no partner's policy holds is not counted.
    for n in 0..3 {
        let body = json!({"public_description": format!("new {n}")});
        assert_eq!(lab.send("PATCH", &channel, Some(body)).await.status(), 200);
    }
    for (grant, verb) in [(&offered, "withdraw"), (&granted[0], "revoke")] {
        let path = format!("/grants/{}/{verb}", grant["id"].as_str().unwrap());
        assert_eq!(lab.send("POST", &path, Some(json!({}))).await.status(), 200, "{verb}");
    }
    // The other side has a rate of its own.
    let asked: Value = pair.hospital.post("/grants", offer).await;
    assert_eq!(asked["status"], "requested");
}

#[tokio::test]
async fn names_cannot_be_asked_for_by_making_organizations() {
    let control = Control::start().await;
    let (tenant, hidden) = (control.organization("Holding").await, control.organization("Hidden").await);
    assert_eq!(hidden.send("PATCH", "/organization", Some(json!({"discoverable": false}))).await.status(), 200);
    let new = |name: &str| json!({"name": name, "owner_email": "x@y.example", "owner_name": "x"});
    for _ in 0..20 {
        assert_eq!(tenant.refused("POST", "/tenant/organizations", Some(new("hidden"))).await.code, "conflict");
    }
    for name in ["hidden", "free"] {
        assert_eq!(tenant.refused("POST", "/tenant/organizations", Some(new(name))).await.code, "rate_limited");
    }
}

#[tokio::test]
async fn a_key_stays_claimed_where_nothing_changed_and_answers_nobody_who_may_do_less() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let activate: Value = pair.lab.post(&format!("/connections/{id}/activate"), json!({})).await;
    assert_eq!(activate["status"], "active");
    let path = format!("/connections/{id}/resume");
    let nothing = keyed(&pair.lab, &format!("/connections/{id}/activate"), "k", json!({})).await;
    assert_eq!((nothing.0, nothing.1), (200, false));
    let _: Value = pair.lab.post(&format!("/connections/{id}/pause"), json!({})).await;
    let again = keyed(&pair.lab, &format!("/connections/{id}/activate"), "k", json!({})).await;
    assert_eq!((again.0, again.1, &again.2["status"]), (200, true, &json!("active")), "answered as before, not done");
    assert_eq!(pair.lab.connection(&id).await.status, ConnectionStatus::Paused);
    // The same key and body with a token that may not do it: no stored answer.
    let _ = keyed(&pair.lab, &path, "r", json!({})).await;
    let token: Value = pair.lab.post("/api-tokens", json!({"name": "x", "scopes": ["read"]})).await;
    let mut reader = pair.lab.detached(&control);
    reader.token = token["token"].as_str().unwrap().to_owned();
    assert_eq!(keyed(&reader, &path, "r", json!({})).await.0, 409);
}

#[tokio::test]
async fn a_value_cannot_forge_a_line_of_the_log() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let body = json!({"description": "x; discoverable: true → false"});
    assert_eq!(hospital.send("PATCH", "/organization", Some(body)).await.status(), 200);
    let log: Vec<AuditEntry> = hospital.list("/audit").await;
    let entry = log.iter().find(|entry| entry.act == "organization.update").unwrap();
    assert!(entry.detail.ends_with("→ \"x; discoverable: true → false\""), "{}", entry.detail);
}
