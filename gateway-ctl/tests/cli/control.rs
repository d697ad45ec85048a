//! Commands for the control plane: names and ids, pages, refusals, destruction.

use gateway_proto::{
    api::{
        Page,
        platform::{CreateGrant, CreateRelay, Executions, Grant, PlatformOrganization, Relay, Role, Server, User},
    },
    id::{DeviceId, EnrollmentCodeId, GrantId, OrganizationId, RelayId},
    peering::GrantStatus,
};
use serde_json::json;

use crate::world::{TOKEN, World, agreement, channel, grant, organization, page, server, user};

const SERVERS: &str = "GET /api/v1/servers";

#[tokio::test]
async fn a_list_is_followed_to_its_last_page() {
    let world = World::signed_in().await;
    world.control.answer(SERVERS, 200, &Page { items: vec![server(1, "lab")], next: Some("p 2".into()) });
    world.control.answer("GET /api/v1/servers?cursor=p+2", 200, &page(vec![server(2, "x-ray")]));
    let servers: Vec<Server> = world.run(&["server", "list", "--json"]).await.json();
    assert_eq!(servers, [server(1, "lab"), server(2, "x-ray")]);
    let table = world.run(&["server", "list"]).await.stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("NAME   GATEWAY       ONLINE  POLICY      VERSION  ID"), "{table}");
    assert!(lines[2].starts_with("x-ray  not enrolled  never   0 in force  -        srv_"), "{table}");
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up() {
    let world = World::signed_in().await;
    let endless = Page { items: vec![server(1, "lab")], next: Some("x".into()) };
    world.control.answer(SERVERS, 200, &endless).answer("GET /api/v1/servers?cursor=x", 200, &endless);
    let outcome = world.run(&["server", "list"]).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("has no end"), "{outcome:?}");
}

#[tokio::test]
async fn destruction_needs_a_yes_and_takes_names() {
    let world = World::signed_in().await;
    let id = server(1, "lab").id;
    let line = format!("DELETE /api/v1/servers/{id}");
    world.control.answer(SERVERS, 200, &page(vec![server(1, "lab")])).answer_text(&line, 204, "");
    let outcome = world.run_with_input(&["server", "delete", "lab"], "y\n").await;
    assert_eq!(outcome.code, 64, "a pipe is no terminal: {outcome:?}");
    assert!(outcome.stderr.contains("--yes"), "{outcome:?}");
    assert!(!world.control.asked().iter().any(|asked| asked.line == line));
    let deed: serde_json::Value = world.run(&["server", "delete", "lab", "--yes", "--json"]).await.json();
    assert_eq!(deed, json!({"act": "server.delete", "id": id.to_string()}));
    assert_eq!(world.control.asked_once(&line).authorization, Some(format!("Bearer {TOKEN}")));
}

#[tokio::test]
async fn an_ambiguous_name_lists_its_candidates_and_does_nothing() {
    let world = World::signed_in().await;
    world.control.answer(SERVERS, 200, &page(vec![server(1, "lab"), server(2, "LAB")]));
    let outcome = world.run(&["server", "delete", "Lab", "--yes"]).await;
    assert_eq!(outcome.code, 1);
    for candidate in [server(1, "lab"), server(2, "LAB")] {
        assert!(outcome.stderr.contains(&format!("  {}  {}", candidate.id, candidate.name)), "{outcome:?}");
    }
    let outcome = world.run(&["server", "show", "ward"]).await;
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.stderr, "error: there is no server 'ward': see `gateway-ctl server list`\n");
}

#[tokio::test]
async fn a_refusal_is_a_no_and_an_unavailable_platform_a_failure() {
    let world = World::signed_in().await;
    let forbidden =
        json!({"code": "forbidden", "status": 403, "detail": "viewers only read\u{1b}[2J", "request_id": "r1"});
    world.control.answer("POST /api/v1/servers", 403, &forbidden);
    let outcome = world.run(&["server", "create", "lab"]).await;
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.stderr, "error: viewers only read\u{fffd}[2J [forbidden]\n");

    let internal = json!({"code": "internal", "status": 500, "detail": "something broke", "request_id": "r2"});
    world.control.answer(SERVERS, 500, &internal);
    let outcome = world.run(&["server", "list"]).await;
    assert_eq!(outcome.code, 2);
    assert_eq!(outcome.stderr, "error: something broke [internal] (request r2)\n");

    let over = json!({"code": "unauthenticated", "status": 401, "detail": "the session is over"});
    world.control.answer("GET /api/v1/users", 401, &over);
    let outcome = world.run(&["user", "list"]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("sign in again with `gateway-ctl login`"), "{outcome:?}");
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_with_the_address() {
    let world = World::signed_in().await;
    world.control.answer_text(SERVERS, 502, "<html>proxy</html>");
    let outcome = world.run(&["server", "list"]).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains(&world.url) && outcome.stderr.contains("502"), "{outcome:?}");
    world.control.answer_text("GET /api/v1/users", 200, "<html>captive portal</html>");
    let outcome = world.run(&["user", "list"]).await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("cannot be read"), "{outcome:?}");
}

#[tokio::test]
async fn a_grant_is_offered_by_names_alone() {
    let world = World::signed_in().await;
    let (agreement, channel) = (agreement(2, "Clinic B"), channel());
    world.control.answer("GET /api/v1/agreements", 200, &page(vec![agreement.clone()]));
    world.control.answer("GET /api/v1/channels", 200, &page(vec![channel.clone()]));
    world.control.answer(SERVERS, 200, &page(vec![server(1, "lab")]));
    world.control.answer("POST /api/v1/grants", 201, &grant());
    let args = [
        "grant",
        "offer",
        "--channel",
        "lab/adt-in",
        "--to",
        "clinic b",
        "--expires",
        "90d",
        "--max-streams",
        "8",
        "--bytes-per-second",
        "50000",
        "--receive-timeout",
        "10m",
        "--behavior",
        "hl7v2-mllp",
        "--staleness",
        "1h",
        "--require-post-quantum",
        "--json",
    ];
    let shown: Grant = world.run(&args).await.json();
    assert_eq!(shown, grant());
    let asked = world.control.asked_once("POST /api/v1/grants");
    let body: CreateGrant = serde_json::from_value(asked.body).unwrap();
    assert_eq!((body.agreement_id, body.channel_id), (agreement.id, channel.id));
    assert_eq!((body.max_streams, body.staleness_secs, body.require_post_quantum), (Some(8), Some(3600), true));
    assert_eq!((body.bytes_per_second, body.receive_timeout_secs), (Some(50_000), Some(600)));
    assert_eq!(body.behaviors, ["hl7v2-mllp"]);
    let expires = body.expires_at.unwrap() - gateway_net::time::unix_secs();
    assert!((90 * 86_400 - 60..=90 * 86_400).contains(&expires), "{expires}");
}

#[tokio::test]
async fn approving_by_name_means_the_grant_that_waits() {
    let world = World::signed_in().await;
    let old = Grant { id: GrantId::new(9, [0; 10]), status: GrantStatus::Withdrawn, ..received() };
    world.control.answer("GET /api/v1/grants", 200, &page(vec![old, received()]));
    world.control.answer(SERVERS, 200, &page(vec![server(1, "lab")]));
    let line = format!("POST /api/v1/grants/{}/approve", received().id);
    world.control.answer(&line, 200, &received());
    let args = ["grant", "approve", "Clinic B/ADT feed", "--server", "lab", "--port", "6661", "--no-auto-activate"];
    let outcome = world.run(&args).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let body = world.control.asked_once(&line).body;
    assert_eq!(body, json!({"sender_server_id": server(1, "lab").id, "sender_port": 6661, "auto_activate": false}));
}

#[tokio::test]
async fn a_request_is_approved_under_the_limits_of_the_owner() {
    let world = World::signed_in().await;
    let asked = Grant { status: GrantStatus::Requested, ..grant() };
    world.control.answer("GET /api/v1/grants", 200, &page(vec![asked.clone()]));
    let line = format!("POST /api/v1/grants/{}/approve", asked.id);
    world.control.answer(&line, 200, &asked);
    let id = asked.id.to_string();
    let mut args = vec!["grant", "approve", id.as_str(), "--max-streams", "4", "--bytes-per-second", "5000"];
    args.extend(["--receive-timeout", "10m", "--expires", "1d"]);
    let outcome = world.run(&args).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let body = world.control.asked_once(&line).body;
    assert_eq!(
        (&body["max_streams"], &body["bytes_per_second"], &body["receive_timeout_secs"]),
        (&json!(4), &json!(5000), &json!(600))
    );
    assert!(body["expires_at"].as_u64().unwrap() > gateway_net::time::unix_secs() + 86_400 - 60, "{body}");
}

#[tokio::test]
async fn self_and_its_name_as_the_platform_compares_names_are_the_own_organization() {
    for wanted in ["self", "SELF", "Clinic A", " clinic  a"] {
        let world = World::signed_in().await;
        world.control.answer("GET /api/v1/organization", 200, &organization());
        let problem = json!({"code": "conflict", "status": 409, "detail": "there is a self-agreement already"});
        world.control.answer("POST /api/v1/peering-requests", 409, &problem);
        assert_eq!(world.run(&["peering", "request", wanted]).await.code, 1);
        let body = world.control.asked_once("POST /api/v1/peering-requests").body;
        assert_eq!(body, json!({"organization_id": organization().id, "message": ""}), "{wanted}");
    }
}

#[tokio::test]
async fn a_relay_is_added_by_the_operator_without_any_profile() {
    let world = World::new();
    let id = RelayId::new(1, [3; 10]);
    let pin = "ab".repeat(32);
    let ready = json!({"event": "ready", "listen": "127.0.0.1:4443", "stun": ["127.0.0.1:3478", "127.0.0.1:3479"],
        "tls_pin": pin, "relay_id": id});
    std::fs::write(world.path("relay.json"), ready.to_string()).unwrap();
    let control = json!({"event": "ready", "url": world.url, "tls_pin": world.pin.to_string()});
    std::fs::write(world.path("control.json"), control.to_string()).unwrap();
    let operator = world.secret("operator", "operator-token\n");
    let stun = vec!["127.0.0.1:3478".to_owned(), "127.0.0.1:3479".to_owned()];
    let relay = Relay {
        id,
        name: "r1".into(),
        url: "wss://127.0.0.1:4443/relay".into(),
        tls_pin: Some(pin),
        stun,
        region: Some("eu-north".into()),
    };
    world.control.answer("POST /api/v1/relays", 201, &relay);
    let args = [
        "relay",
        "add",
        "--name",
        "r1",
        "--from-ready-file",
        "relay.json",
        "--region",
        "eu-north",
        "--operator-token-file",
        &operator,
        "--control-ready-file",
        "control.json",
        "--json",
    ];
    let shown: Relay = world.run(&args).await.json();
    assert_eq!(shown, relay);
    let asked = world.control.asked_once("POST /api/v1/relays");
    assert_eq!(asked.authorization.as_deref(), Some("Operator operator-token"));
    let body: CreateRelay = serde_json::from_value(asked.body).unwrap();
    assert_eq!((body.url, body.stun, body.tls_pin), (relay.url, relay.stun, relay.tls_pin));
    assert_eq!(body.region, relay.region);
}

#[tokio::test]
async fn a_relay_with_a_new_key_is_changed_by_its_name_and_ready_file_and_stays_in_the_map() {
    let world = World::new();
    let id = RelayId::new(1, [3; 10]);
    let ready = json!({"event": "ready", "listen": "0.0.0.0:4443", "stun": ["0.0.0.0:3478", "0.0.0.0:3479"],
        "tls_pin": "cd".repeat(32), "relay_id": id});
    std::fs::write(world.path("relay.json"), ready.to_string()).unwrap();
    let control = json!({"event": "ready", "url": world.url, "tls_pin": world.pin.to_string()});
    std::fs::write(world.path("control.json"), control.to_string()).unwrap();
    let operator = world.secret("operator", "operator-token\n");
    let relay = Relay {
        id,
        name: "r1".into(),
        url: "wss://relay.example:4443/relay".into(),
        tls_pin: Some("ab".repeat(32)),
        stun: Vec::new(),
        region: None,
    };
    world.control.answer("GET /api/v1/relays", 200, &page(vec![relay.clone()]));
    let line = format!("PATCH /api/v1/relays/{id}");
    world.control.answer(&line, 200, &relay);
    let place = ["--operator-token-file", &operator, "--control-ready-file", "control.json", "--json"];
    let update = ["relay", "update", "R1", "--from-ready-file", "relay.json"];
    let shown: Relay = world.run(&[&update[..], &place[..]].concat()).await.json();
    assert_eq!(shown, relay);
    let body = world.control.asked_once(&line).body;
    let stun = ["relay.example:3478", "relay.example:3479"];
    let told = json!({"name": null, "region": null, "url": relay.url, "tls_pin": "cd".repeat(32), "stun": stun});
    assert_eq!(body, told);
    let asked = world.control.asked();
    assert!(asked.iter().all(|asked| asked.line == line || asked.line == "GET /api/v1/relays"), "{asked:?}");
}

#[tokio::test]
async fn a_token_of_the_platform_that_became_known_ends_at_once() {
    let world = World::new();
    let control = json!({"event": "ready", "url": world.url, "tls_pin": world.pin.to_string()});
    std::fs::write(world.path("control.json"), control.to_string()).unwrap();
    let operator = world.secret("operator", "operator-token\n");
    let line = "POST /api/v1/platform-tokens/operator/rotate";
    world.control.answer(line, 200, &json!({"token": "the-new-one", "old_until": 1_000}));
    let into = world.path("new-operator").display().to_string();
    let place = ["--into", &into, "--operator-token-file", &operator, "--control-ready-file", "control.json"];
    let rotate = ["platform-token", "rotate", "operator", "--at-once"];
    let outcome = world.run(&[&rotate[..], &place[..]].concat()).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(world.control.asked_once(line).body, json!({"overlap_secs": 0}));
    assert_eq!(std::fs::read_to_string(&into).unwrap(), "the-new-one\n");
    let both = world.run(&[&rotate[..], &["--overlap", "1h"], &place[..]].concat()).await;
    assert_ne!(both.code, 0, "{both:?}");
    world.control.asked_once(line);
}

#[tokio::test]
async fn an_enrolment_code_is_the_only_thing_on_standard_output() {
    let world = World::signed_in().await;
    let id = server(1, "lab").id;
    world.control.answer(SERVERS, 200, &page(vec![server(1, "lab")]));
    let line = format!("POST /api/v1/servers/{id}/enrollment-codes");
    world.control.answer(&line, 201, &json!({"code": "gwe1_code", "expires_at": 4_000_000_000u64}));
    let outcome = world.run(&["server", "enrollment-code", "lab", "--valid", "10m"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "gwe1_code\n"), "{outcome:?}");
    assert_eq!(world.control.asked_once(&line).body, json!({"valid_secs": 600}));
}

#[tokio::test]
async fn an_enrolment_code_that_nobody_used_is_listed_by_its_id_and_revoked() {
    let world = World::signed_in().await;
    let path = format!("/api/v1/servers/{}/enrollment-codes", server(1, "lab").id);
    let code = EnrollmentCodeId::new(1, [7; 10]);
    let row = json!({"id": code, "issued_by": "a@a.example", "expires_at": 4_000_000_000u64});
    world.control.answer(SERVERS, 200, &page(vec![server(1, "lab")]));
    world.control.answer(&format!("GET {path}"), 200, &page(vec![row]));
    let line = format!("DELETE {path}/{code}");
    world.control.answer_text(&line, 204, "");
    let table = world.run(&["server", "enrollment-codes", "lab"]).await.stdout;
    assert!(table.contains(&code.to_string()) && table.contains("a@a.example"), "{table}");
    let other = EnrollmentCodeId::new(1, [8; 10]).to_string();
    let outcome = world.run(&["server", "revoke-enrollment-code", "lab", &other, "--yes"]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let deed: serde_json::Value =
        world.run(&["server", "revoke-enrollment-code", "lab", "--yes", "--json"]).await.json();
    assert_eq!(deed, json!({"act": "enrollment_code.delete", "id": code.to_string()}));
    world.control.asked_once(&line);
}

#[tokio::test]
async fn the_operator_sees_the_usage_of_any_organization_by_its_name_and_of_a_device_by_its_id() {
    let world = World::new();
    let control = json!({"event": "ready", "url": world.url, "tls_pin": world.pin.to_string()});
    std::fs::write(world.path("control.json"), control.to_string()).unwrap();
    let operator = world.secret("operator", "operator-token\n");
    let id = OrganizationId::new(1, [4; 10]);
    let hospital = PlatformOrganization { id, name: "Hospital".into(), tier: "Free".into(), created_at: 1 };
    world.control.answer("GET /api/v1/organizations", 200, &page(vec![hospital]));
    let device = DeviceId::new(1, [5; 10]);
    let used = Executions {
        day: "2026-01-31".into(),
        device_id: device,
        device_name: "x-ray".into(),
        behavior: "dicom".into(),
        number: 7,
    };
    let line = format!("GET /api/v1/organizations/{id}/executions?device={device}");
    world.control.answer(&line, 200, &page(vec![used.clone()]));
    let (usage, device) = (["usage", "--organization", "hospital", "--device"], device.to_string());
    let place = ["--operator-token-file", &operator, "--control-ready-file", "control.json", "--json"];
    let shown: Vec<Executions> = world.run(&[&usage[..], &[device.as_str()], &place[..]].concat()).await.json();
    assert_eq!(shown, [used]);
    assert_eq!(world.control.asked_once(&line).authorization.as_deref(), Some("Operator operator-token"));
    // Names of devices are their organization's; and a session sees no other organization.
    assert_eq!(world.run(&[&usage[..], &["x-ray"], &place[..]].concat()).await.code, 64);
    assert_eq!(world.run(&["usage", "--organization", "Hospital"]).await.code, 64);
}

#[tokio::test]
async fn a_user_gets_another_role_by_the_name_of_both() {
    let world = World::signed_in().await;
    let line = format!("PATCH /api/v1/users/{}", user().id);
    world.control.answer("GET /api/v1/users", 200, &page(vec![user()]));
    world.control.answer(&line, 200, &User { role: Role::Viewer, ..user() });
    let shown: User = world.run(&["user", "role", "a@a.example", "viewer", "--json"]).await.json();
    assert_eq!(shown.role, Role::Viewer);
    assert_eq!(world.control.asked_once(&line).body, json!({"role": "viewer"}));
    assert_eq!(world.run(&["user", "role", "a@a.example", "king"]).await.code, 64);
}

/// One that a partner gave us.
fn received() -> Grant {
    Grant { direction: "received".into(), ..grant() }
}
