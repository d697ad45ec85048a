//! Commands for what stands around grants: admin connections, tokens, the audit log.

use gateway_proto::{
    api::platform::{AuditAnchor, AuditEntry, Me},
    audit,
    id::AuditId,
};
use serde_json::json;

use crate::world::{World, agreement, organization, page, server, user};

#[tokio::test]
async fn an_admin_offer_widens_nothing_that_it_does_not_name() {
    let world = World::signed_in().await;
    world.control.answer("GET /api/v1/servers", 200, &page(vec![server(1, "lab")]));
    world.control.answer("GET /api/v1/agreements", 200, &page(vec![agreement(2, "Clinic B")]));
    let problem = json!({"code": "tier_limit", "status": 409, "detail": "no"});
    world.control.answer("POST /api/v1/admin-connections", 409, &problem);
    let args = ["admin", "offer", "--server", "lab", "--to", "Clinic B", "--patient-data", "--message", "hello"];
    assert_eq!(world.run(&args).await.code, 1);
    let body = world.control.asked_once("POST /api/v1/admin-connections").body;
    assert_eq!(body["access"], "read_only");
    let scope = json!({"patient_data": true, "probes": false, "extension_upload": false, "named_people": false});
    assert_eq!(body["scope"], scope);
    assert_eq!((&body["server_id"], &body["expires_at"]), (&json!(server(1, "lab").id), &json!(null)));
}

#[tokio::test]
async fn a_token_is_the_only_thing_on_standard_output() {
    let world = World::signed_in().await;
    let token = json!({
        "id": "tok_00000000000070008000000000000001", "user_id": user().id, "name": "ci", "scopes": ["read"],
        "expires_at": 4_000_000_000u64, "last_used_at": null, "created_at": 1,
    });
    world.control.answer("POST /api/v1/api-tokens", 201, &json!({"token": "gwt_x", "api_token": token}));
    let outcome = world.run(&["token", "create", "ci", "--scopes", "read,connection", "--valid", "1d"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "gwt_x\n"), "{outcome:?}");
    let body = world.control.asked_once("POST /api/v1/api-tokens").body;
    assert_eq!(body, json!({"name": "ci", "scopes": ["read", "connection"], "valid_secs": 86_400}));
}

const AUDIT: &str = "GET /api/v1/audit?order=oldest&limit=200";
const ANCHOR: &str = "GET /api/v1/audit/anchor";

/// Of a log that nothing was removed from.
fn beginning() -> AuditAnchor {
    AuditAnchor { sequence: 0, hash: String::new(), removed_at: None }
}

fn log() -> Vec<AuditEntry> {
    let chain = organization().id.to_string();
    let mut previous = String::new();
    let entries = (1..=3u64).map(|sequence| {
        let mut entry = AuditEntry {
            id: AuditId::new(sequence, [0; 10]),
            sequence,
            at: 1_760_000_000,
            actor: "owner@clinic.example".into(),
            act: "server.create".into(),
            object: format!("srv_{sequence}"),
            detail: String::new(),
            request_id: String::new(),
            hash: String::new(),
        };
        entry.hash = audit::hash(&chain, &previous, &entry);
        previous.clone_from(&entry.hash);
        entry
    });
    entries.collect()
}

#[tokio::test]
async fn a_whole_log_is_told_from_one_that_was_changed_or_written_anew() {
    let world = World::signed_in().await;
    world.control.answer("GET /api/v1/me", 200, &Me { user: user(), organization: organization() });
    world.control.answer(ANCHOR, 200, &beginning());
    // Page by page, oldest first: an append-only log has no end.
    let mut first = page(log()[..2].to_vec());
    first.next = Some("c".into());
    world.control.answer(AUDIT, 200, &first);
    world.control.answer(&format!("{AUDIT}&cursor=c"), 200, &page(log()[2..].to_vec()));
    let outcome = world.run(&["audit", "verify"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains(&log()[2].hash), "{outcome:?}");
    let export = world.run(&["audit", "export"]).await.stdout;
    assert_eq!(export.lines().count(), 3);
    std::fs::write(world.path("log.jsonl"), &export).unwrap();
    assert_eq!(world.run(&["audit", "verify", "--against", "log.jsonl"]).await.code, 0);
    std::fs::write(world.path("log.jsonl"), export.replace("srv_1", "srv_9")).unwrap();
    assert_eq!(world.run(&["audit", "verify", "--against", "log.jsonl"]).await.code, 1);
    std::fs::write(world.path("log.jsonl"), format!("{export}{export}")).unwrap();
    let longer = world.run(&["audit", "verify", "--against", "log.jsonl"]).await;
    assert!(longer.code == 1 && longer.stderr.contains("line 4 of log.jsonl"), "{longer:?}");
    for format in ["fhir", "syslog"] {
        let lines = world.run(&["audit", "export", "--format", format]).await.stdout;
        assert_eq!(lines.lines().count(), 3, "{lines}");
    }
    let mut changed = log();
    changed[1].actor = "nobody@clinic.example".into();
    let world = World::signed_in().await;
    world.control.answer("GET /api/v1/me", 200, &Me { user: user(), organization: organization() });
    world.control.answer(ANCHOR, 200, &beginning());
    world.control.answer(AUDIT, 200, &page(changed));
    let outcome = world.run(&["audit", "verify"]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("entry 2"), "{outcome:?}");
}

#[tokio::test]
async fn a_log_whose_oldest_entries_were_removed_is_compared_from_where_it_begins() {
    let world = World::signed_in().await;
    world.control.answer("GET /api/v1/me", 200, &Me { user: user(), organization: organization() });
    let anchor = AuditAnchor { sequence: 2, hash: log()[1].hash.clone(), removed_at: Some(1_760_000_000) };
    world.control.answer(ANCHOR, 200, &anchor);
    world.control.answer(AUDIT, 200, &page(log()[2..].to_vec()));
    let lines: Vec<_> = log().iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
    let mut forged = log();
    forged[1].hash = forged[0].hash.clone();
    let forged = serde_json::to_string(&forged[1]).unwrap();
    for (older, code, words) in [
        (lines.join("\n"), 0, "after entry 2"),
        (lines[..2].join("\n"), 0, "after entry 2"),
        (lines[..1].join("\n"), 1, "nothing to compare"),
        (forged, 1, "written anew"),
    ] {
        std::fs::write(world.path("log.jsonl"), older).unwrap();
        let outcome = world.run(&["audit", "verify", "--against", "log.jsonl"]).await;
        assert!(outcome.code == code && format!("{outcome:?}").contains(words), "{words}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_device_token_is_the_only_thing_on_standard_output() {
    let world = World::signed_in().await;
    let device = json!({
        "id": "dev_00000000000070008000000000000001", "organization_id": organization().id, "kind": "application",
        "name": "portal", "description": "", "server_id": null, "behaviors": [], "linkable_by": "organization",
        "created_at": 1,
    });
    let token = json!({
        "id": "dtk_00000000000070008000000000000001", "device_id": device["id"], "audience": "gateway",
        "key_thumbprint": null, "issued_by": "owner@clinic.example", "expires_at": 4_000_000_000u64,
        "revoked_at": null, "created_at": 1,
    });
    world.control.answer("GET /api/v1/devices", 200, &page(vec![device]));
    let path = "POST /api/v1/devices/dev_00000000000070008000000000000001/tokens";
    world.control.answer(path, 201, &json!({"token": "a.b.c", "device_token": token}));
    let outcome = world.run(&["device", "token", "create", "Portal", "--valid", "5m"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "a.b.c\n"), "{outcome:?}");
    let body = world.control.asked_once(path).body;
    assert_eq!(body, json!({"audience": null, "valid_secs": 300, "key": null}));
    assert_eq!(world.run(&["device", "update", "portal"]).await.code, 64, "nothing to change");
    assert_eq!(world.run(&["token-key", "rotate"]).await.code, 64, "the operator's token is missing");
}

#[tokio::test]
async fn a_link_finds_its_target_among_the_own_devices_and_those_of_others() {
    let world = World::signed_in().await;
    let id = |n: u8| format!("dev_0000000000007000800000000000000{n}");
    let own = json!({
        "id": id(1), "organization_id": organization().id, "kind": "application", "name": "portal", "description": "",
        "server_id": null, "behaviors": [], "linkable_by": "organization", "created_at": 1,
    });
    let target = json!({
        "id": id(2), "organization_id": null, "organization_name": null, "kind": "fhir_endpoint", "name": "FHIR",
        "description": "", "behaviors": ["fhir-query"],
    });
    world.control.answer("GET /api/v1/devices", 200, &page(vec![own]));
    world.control.answer("GET /api/v1/linkable-devices", 200, &page(vec![target]));
    let problem = json!({"code": "conflict", "status": 409, "detail": "linked already"});
    world.control.answer("POST /api/v1/links", 409, &problem);
    assert_eq!(world.run(&["link", "create", "--from", "portal", "--to", "fhir"]).await.code, 1);
    let body = world.control.asked_once("POST /api/v1/links").body;
    assert_eq!(body, json!({"source_device_id": id(1), "target_device_id": id(2)}));
    assert_eq!(world.run(&["link", "create", "--from", "portal", "--to", "nobody"]).await.code, 1);
}

#[tokio::test]
async fn an_invitation_is_taken_back_by_the_address_it_went_to() {
    let world = World::signed_in().await;
    let id = "inv_00000000000070008000000000000001";
    let waits = json!({
        "id": id, "email": "new@a.example", "name": "New", "role": "viewer", "expires_at": 4_000_000_000u64,
        "created_at": 1,
    });
    world.control.answer("GET /api/v1/invitations", 200, &page(vec![waits]));
    let line = format!("DELETE /api/v1/invitations/{id}");
    world.control.answer_text(&line, 204, "");
    let outcome = world.run(&["user", "revoke-invitation", "New@a.example", "--yes"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    world.control.asked_once(&line);
}

fn connection_id(n: u8) -> String {
    format!("con_0000000000007000800000000000000{n}")
}

/// A connection from us to a peer.
fn connection(n: u8, peer: &str, endpoint: &str, status: &str) -> serde_json::Value {
    let end = |organization: &str, role: &str| {
        json!({"server_id": null, "server_name": "lab", "organization_name": organization, "role": role, "paused": false,
            "policy_in_force": false, "policy_in_force_since": null, "report": null, "reported_at": null})
    };
    json!({"id": connection_id(n), "grant_id": null, "agreement_id": agreement(n, peer).id, "kind": "p2p",
        "endpoint": endpoint, "behavior": "hl7v2-mllp", "status": status, "suspended": false, "auto_activate": true,
        "policy_in_force_since": null, "sender": end("Self", "sender"), "listener": end(peer, "listener"),
        "created_at": 1, "ended_at": null})
}

#[tokio::test]
async fn a_connection_that_failed_is_tried_again_by_the_endpoint_of_its_peer() {
    let world = World::signed_in().await;
    // The second one reads like the first one, and the verb could act on it as well.
    let all = vec![connection(1, "Clinic B", "ADT", "failed"), connection(2, "Mallory", "Clinic B/ADT", "failed")];
    world.control.answer("GET /api/v1/connections?ended=true", 200, &page(all));
    let line = format!("POST /api/v1/connections/{}/retry", connection_id(1));
    world.control.answer(&line, 200, &connection(1, "Clinic B", "ADT", "ready"));
    let outcome = world.run(&["connection", "retry", "Clinic B/ADT"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    world.control.asked_once(&line);
}

#[tokio::test]
async fn a_secret_is_replaced_with_an_overlap_or_at_once_and_not_both() {
    let world = World::signed_in().await;
    let all = vec![connection(1, "Clinic B", "ADT", "active")];
    world.control.answer("GET /api/v1/connections?ended=true", 200, &page(all));
    let line = format!("POST /api/v1/connections/{}/rotate-secret", connection_id(1));
    let mut rotating = connection(1, "Clinic B", "ADT", "active");
    rotating["secret_rotation"] = json!({"new_from": 1_800, "old_until": 3_600});
    world.control.answer(&line, 200, &rotating);
    let outcome = world.run(&["connection", "rotate-secret", "Clinic B/ADT", "--overlap", "1h"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("the old one accepted until 1970-01-01 01:00:00Z"), "{outcome:?}");
    assert_eq!(world.control.asked_once(&line).body, json!({"overlap_secs": 3_600, "at_once": false}));
    let both = world.run(&["connection", "rotate-secret", "Clinic B/ADT", "--overlap", "1h", "--at-once"]).await;
    assert_ne!(both.code, 0, "{both:?}");
    world.control.asked_once(&line);
}

#[tokio::test]
async fn connections_that_ended_are_counted_where_they_are_not_listed() {
    let world = World::signed_in().await;
    let all = vec![connection(1, "Clinic B", "ADT", "active"), connection(2, "Clinic B", "ORU", "terminated")];
    let line = "GET /api/v1/connections?ended=true";
    let ended = json!({"number": 1000, "and_more": true});
    let first = json!({"items": all[..1], "next": "p", "ended": ended});
    world.control.answer("GET /api/v1/connections", 200, &first);
    world.control.answer(
        "GET /api/v1/connections?cursor=p",
        200,
        &page(vec![connection(3, "Clinic B", "SIU", "active")]),
    );
    world.control.answer(line, 200, &page(all));
    let living = world.run(&["connection", "list"]).await;
    assert_eq!(living.code, 0, "{living:?}");
    let listed = |name: &str| living.stdout.contains(name);
    assert!(listed("ADT") && listed("SIU") && !listed("ORU"), "{living:?}");
    assert!(living.stderr.contains("1000 and more that ended not shown"), "{living:?}");
    let asked = world.control.asked();
    assert!(!asked.iter().any(|asked| asked.line.contains("ended=")), "what ended is not read: {asked:?}");
    let ended = world.run(&["connection", "list", "--ended"]).await;
    assert!(ended.stdout.contains("ORU") && !ended.stderr.contains("not shown"), "{ended:?}");
}

#[tokio::test]
async fn a_pause_of_the_other_side_that_stays_is_told_when_the_own_one_is_taken_back() {
    let world = World::signed_in().await;
    let line = format!("POST /api/v1/connections/{}/resume", connection_id(1));
    for status in ["paused", "active"] {
        world.control.answer(&line, 200, &connection(1, "Clinic B", "ADT", status));
    }
    for is_told in [true, false] {
        let outcome = world.run(&["connection", "resume", &connection_id(1)]).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert_eq!(outcome.stderr.contains("the other side holds a pause"), is_told, "{outcome:?}");
    }
}

#[tokio::test]
async fn an_organization_is_deleted_with_a_yes_only() {
    let world = World::signed_in().await;
    world.control.answer("GET /api/v1/organization", 200, &organization());
    world.control.answer_text("DELETE /api/v1/organization", 204, "");
    assert_eq!(world.run_with_input(&["organization", "delete"], "y\n").await.code, 64);
    let asked = world.control.asked();
    assert!(!asked.iter().any(|asked| asked.line.starts_with("DELETE")), "{asked:?}");
    assert_eq!(world.run(&["organization", "delete", "--yes"]).await.code, 0);
}
