//! What everybody can count on at the edge, whatever is asked for: names that can be told apart, conditions that are
//! kept, answers that arrive, words that are true.

use std::time::Duration;

use gateway_proto::api::{Problem, platform::DirectoryEntry};
use serde_json::{Value, json};

use super::harness::{Control, Org};

#[tokio::test]
async fn a_name_that_looks_like_another_one_is_nobodys() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let create = async |name: &str| {
        let body = json!({
            "name": name, "owner_email": "o@x.example", "owner_name": "O", "owner_password": "correct horse battery",
            "registration_token": control.operator,
        });
        let answer = control.request("POST", "/api/v1/organizations").json(&body).send().await.unwrap();
        answer.status().as_u16()
    };
    for name in [
        "Self\u{200b}",
        "Self\u{ad}",
        "\u{202e}fleS",
        "\u{200b}",
        "\u{feff}Hospital",
        "\u{2066}Hospital\u{2069}",
        "S\u{435}lf",
        "ſelf",
        "Ｓｅｌｆ",
        "\u{3164}",
        "Hosp\u{2028}ital",
    ] {
        assert_eq!(create(name).await, 422, "{name:?}");
    }
    for name in ["HOSPITAL", "Ｈospital", "Hoſpital", " Hospital "] {
        assert_eq!(create(name).await, 409, "{name:?}");
    }
    for name in ["بیمارستان می\u{200c}خواهم", "בית חולים", "अस्पताल", "Hôpital", "Больница № 3"]
    {
        assert_eq!(create(name).await, 201, "{name:?}");
    }
    // The same holds for whatever else has a name or words that others read.
    let server = hospital.server("main").await;
    for (path, body) in [
        ("/servers", json!({"name": "ma\u{200b}in"})),
        ("/devices", json!({"kind": "application", "name": "\u{202e}x"})),
        ("/devices", json!({"kind": "application", "name": "x", "description": "a\u{2066}b"})),
        ("/channels", json!({"server_id": server.id, "name": "x\u{feff}", "engine": "127.0.0.1:1"})),
        ("/users", json!({"email": "a@x.example", "name": "\u{200b}", "role": "viewer", "password": "long enough pw"})),
        ("/api-tokens", json!({"name": "x\u{ad}", "scopes": ["read"]})),
    ] {
        assert_eq!(hospital.refused("POST", path, Some(body)).await.code, "invalid", "{path}");
    }
    assert_eq!(hospital.refused("POST", "/servers", Some(json!({"name": "ＭＡＩＮ"}))).await.code, "conflict");
}

#[tokio::test]
async fn a_time_that_no_calendar_has_is_refused_and_any_other_is_kept_to_the_second() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let channel = pair.lab.channel(&pair.lab_server, "Orders").await;
    let last = 253_402_300_799_u64;
    for end in [u64::MAX, i64::MAX as u64 + 1, last + 1] {
        for (path, mut body) in [
            ("/grants", json!({"channel_id": channel.id})),
            ("/admin-connections", json!({"server_id": pair.lab_server.id})),
            ("/server-shares", json!({"server_id": pair.lab_server.id, "level": "viewer"})),
        ] {
            body["agreement_id"] = json!(pair.agreement);
            body["expires_at"] = json!(end);
            assert_eq!(pair.lab.refused("POST", path, Some(body)).await.code, "invalid", "{path} {end}");
        }
    }
    let offer = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "expires_at": last});
    let made = pair.lab.send("POST", "/grants", Some(offer)).await;
    let tag = made.headers()["etag"].clone();
    let made: Value = made.json().await.unwrap();
    let read = pair.lab.send("GET", &format!("/grants/{}", made["id"].as_str().unwrap()), None).await;
    assert_eq!(read.headers()["etag"], tag);
    assert_eq!(read.json::<Value>().await.unwrap()["expires_at"], last);
}

#[tokio::test]
async fn a_condition_is_kept_or_refused_and_never_passed_over() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (lab, hospital) = (&pair.lab, &pair.hospital);
    let share = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": "viewer"});
    let share: Value = lab.post("/server-shares", share).await;
    let device: Value = lab.post("/devices", json!({"kind": "application", "name": "ehr"})).await;
    let device_token: Value = lab.post(&format!("/devices/{}/tokens", text(&device["id"])), json!({})).await;
    let api_token: Value = lab.post("/api-tokens", json!({"name": "x", "scopes": ["read"]})).await;
    let invitation: Value =
        lab.post("/invitations", json!({"email": "i@x.example", "name": "I", "role": "viewer"})).await;
    let sub = json!({"name": "Sub", "owner_email": "s@x.example", "owner_name": "S"});
    let sub: Value = lab.post("/tenant/organizations", sub).await;
    let viewer = lab.user("viewer").await;

    let conditional = async |org: &Org<'_>, method: &str, path: &str, body: &Value, tag: &str| {
        let request = org.control.request(method, &format!("/api/v1{path}")).bearer_auth(&org.token);
        let answer = request.header("if-match", tag).json(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, if status < 300 { String::new() } else { answer.json::<Problem>().await.unwrap().code })
    };
    let person = json!({"email": "j@x.example", "name": "J", "role": "viewer"});
    for (method, path, body) in [
        ("DELETE", format!("/users/{}/totp", viewer.session.user.id), json!({})),
        ("POST", format!("/servers/{}/enrollment-codes", pair.lab_server.id), json!({})),
        ("POST", format!("/devices/{}/tokens", text(&device["id"])), json!({})),
        ("POST", format!("/tenant/organizations/{}/invitations", text(&sub["organization"]["id"])), person.clone()),
        ("POST", "/invitations".to_owned(), person),
        ("POST", "/servers".to_owned(), json!({"name": "second"})),
        ("DELETE", format!("/api-tokens/{}", text(&api_token["api_token"]["id"])), json!({})),
        ("DELETE", format!("/device-tokens/{}", text(&device_token["device_token"]["id"])), json!({})),
        ("DELETE", format!("/invitations/{}", text(&invitation["invitation"]["id"])), json!({})),
    ] {
        let (status, code) = conditional(lab, method, &path, &body, "\"00\"").await;
        let is_refused = matches!((status, code.as_str()), (422, "unconditional") | (412, "changed"));
        assert!(is_refused, "{method} {path}: {status} {code}");
    }
    assert_eq!(lab.list::<Value>("/servers").await.len(), 1);
    assert_eq!(lab.list::<Value>("/api-tokens").await.len(), 1);
    assert_eq!(lab.list::<Value>("/invitations").await.len(), 1);

    let path = format!("/server-shares/{}", text(&share["id"]));
    let tag = hospital.send("GET", &path, None).await.headers()["etag"].to_str().unwrap().to_owned();
    let (open, body) = (format!("{path}/open"), json!({"server_id": pair.hospital_server.id}));
    assert_eq!(conditional(hospital, "POST", &open, &body, "\"00\"").await.0, 412);
    assert_eq!(conditional(hospital, "POST", &open, &body, &tag).await.0, 200);

    let operator = format!("Operator {}", control.operator);
    let relay = control.request("POST", "/api/v1/relays").header("authorization", operator);
    let relay = relay.header("if-match", "*").json(&json!({})).send().await.unwrap();
    assert_eq!(relay.json::<Problem>().await.unwrap().code, "unconditional");
}

#[tokio::test]
async fn nor_is_a_condition_passed_over_where_nobody_is_signed_in_or_nothing_is_changed() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let refused = async |path: &str, authorization: &str, body: Value| {
        let request = control.request("POST", &format!("/api/v1{path}")).header("authorization", authorization);
        let answer = request.header("if-match", "\"00\"").json(&body).send().await.unwrap();
        let problem: Problem = answer.json().await.unwrap();
        assert_eq!((problem.status, problem.code.as_str()), (422, "unconditional"), "{path}");
    };
    let organization = json!({
        "name": "Lab", "owner_email": "o@lab.example", "owner_name": "O", "owner_password": "correct horse battery",
        "registration_token": control.operator,
    });
    let login = json!({"email": hospital.session.user.email, "password": "correct horse battery"});
    refused("/organizations", "", organization.clone()).await;
    refused("/sessions", "", login.clone()).await;
    let signed_in = format!("Bearer {}", hospital.token);
    refused("/sessions", &signed_in, login).await;
    for path in ["/invitations/accept", "/oidc/start", "/oidc/sessions", "/gateway/enroll", "/device-tokens/introspect"]
    {
        refused(path, "", json!({})).await;
    }
    refused("/device-tokens/introspect", &signed_in, json!({"token": "x"})).await;
    refused("/device-tokens/introspect", "Gateway x", json!({"token": "x"})).await;
    // Nothing was made, and the name is free.
    let created = control.request("POST", "/api/v1/organizations").json(&organization).send().await.unwrap();
    assert_eq!(created.status(), 201);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[tokio::test]
async fn the_refusal_of_a_body_that_is_too_large_arrives() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    for size in [(1 << 20) + 1, 1_300_000, 3 << 20] {
        for _ in 0..5 {
            let body = json!({"name": "x".repeat(size)});
            assert_eq!(hospital.send("POST", "/servers", Some(body)).await.status(), 413, "{size}");
        }
    }
    // Who has no leave, and who asks for nothing that is there, hears that after a long body too.
    for (path, token, status) in [("/servers", "gws_wrong", 401), ("/nowhere", hospital.token.as_str(), 404)] {
        let request = control.request("POST", &format!("/api/v1{path}")).bearer_auth(token);
        let answer = request.json(&json!({"name": "x".repeat(900_000)})).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(answer.headers().get("connection").is_none(), "the connection goes on");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_and_what_can_is_found() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    for filter in ["search", "q"] {
        let found: Vec<DirectoryEntry> = hospital.list(&format!("/directory?{filter}=lab")).await;
        assert_eq!(
            found.iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>(),
            std::slice::from_ref(&lab.id),
            "{filter}"
        );
    }
    for path in ["/relays", "/tiers", "/behaviors", "/directory", "/servers"] {
        assert_eq!(hospital.refused("GET", &format!("{path}?nope=1"), None).await.code, "invalid", "{path}");
        assert_eq!(hospital.send("GET", path, None).await.status(), 200);
    }
    for path in ["/token-keys", "/policy-keys"] {
        let ask = async |path: &str| {
            let request = control.request("GET", &format!("/api/v1{path}"));
            let request = request.header("authorization", format!("operator {}", control.operator));
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!((ask(&format!("{path}?nope=1")).await, ask(path).await), (422, 200), "{path}");
    }
    // The scheme has no case; the token has.
    for (scheme, status) in [("bearer", 200), ("BEARER", 200), ("Bearer ", 200), ("bear", 401)] {
        let request = control.request("GET", "/api/v1/me");
        let answer = request.header("authorization", format!("{scheme} {}", hospital.token)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{scheme}");
    }
    let document: Value = serde_json::from_str(&gateway_control::http::document()).unwrap();
    let declared = &document["paths"]["/.well-known/jwks.json"]["get"]["responses"]["200"]["content"];
    let answer = control.request("GET", "/.well-known/jwks.json").send().await.unwrap();
    assert!(declared.get(answer.headers()["content-type"].to_str().unwrap()).is_some(), "{declared}");
}

#[tokio::test]
async fn an_answer_that_is_given_again_is_the_same_and_a_key_is_free_after_a_day() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let send = async |org: &Org<'_>, method: &str, path: &str, key: &str, body: &Value| {
        let request = org.control.request(method, &format!("/api/v1{path}")).bearer_auth(&org.token);
        let answer = request.header("idempotency-key", key).json(body).send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let is_replayed = header("idempotency-replayed").is_some();
        (answer.status().as_u16(), header("etag"), header("content-type"), is_replayed)
    };
    let server = hospital.server("first").await;
    let (path, second) = (format!("/servers/{}", server.id), json!({"name": "second"}));
    let nothing = json!({});
    for (method, path, body, status) in [("POST", "/servers", &second, 201), ("DELETE", path.as_str(), &nothing, 204)] {
        let first = send(&hospital, method, path, method, body).await;
        let again = send(&hospital, method, path, method, body).await;
        assert_eq!((first.0, first.3), (status, false));
        assert_eq!(again, (first.0, first.1, first.2, true), "{method}");
    }
    // Nobody has swept it yet.
    control.clock.advance(Duration::from_secs(24 * 3600 + 1));
    let hospital = hospital.sign_in().await;
    let third = json!({"name": "third"});
    assert_eq!(send(&hospital, "POST", "/servers", "POST", &third).await.0, 201);
    assert!(send(&hospital, "POST", "/servers", "POST", &third).await.3);
}

#[tokio::test]
async fn a_disk_that_does_not_take_ready_json_does_not_keep_the_control_plane_away() {
    let control = Control::start().await;
    let directory = control.stop().await;
    let file = directory.path().join("data").join("ready.json");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let control = Control::start_in(directory, "").await;
    assert_eq!(control.request("GET", "/readyz").send().await.unwrap().status(), 200);
}
