mod details;

use std::time::Duration;

use gateway_control::storage::Storage;
use gateway_proto::{
    api::{
        Page,
        platform::{AuditAnchor, AuditEntry, Channel, CreatedInvitation, Grant},
    },
    audit::{PLATFORM_CHAIN, verify},
};
use serde_json::json;

use super::{
    database,
    harness::{Control, Gateway},
};

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn each_organization_can_verify_its_own_chain() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    for org in [&pair.hospital, &pair.lab] {
        let mut log: Vec<AuditEntry> = org.list("/audit").await;
        log.reverse();
        verify(&org.id, &log).unwrap();
        let (mut oldest_first, mut cursor) = (Vec::new(), Some(String::new()));
        while let Some(from) = cursor {
            let page: Page<AuditEntry> = org.get(&format!("/audit?order=oldest&limit=3{from}")).await;
            oldest_first.extend(page.items);
            cursor = page.next.map(|next| format!("&cursor={next}"));
        }
        assert_eq!(oldest_first, log);
        let signed_in = log.iter().filter(|entry| entry.actor.contains('@') && entry.act != "organization.create");
        assert!(
            signed_in.clone().count() > 3 && signed_in.clone().all(|entry| entry.request_id.len() == 16),
            "{log:?}"
        );
        let acts: Vec<_> = log.iter().map(|entry| entry.act.as_str()).collect();
        for act in ["server.create", "gateway.enroll", "peering_request.accept", "grant.offer", "grant.approve"] {
            assert!(acts.contains(&act), "{act} is missing in {acts:?}");
        }
        let text = format!("{log:?}");
        let other = if org.id == pair.lab.id { "owner@hospital.example" } else { "owner@lab.example" };
        assert!(!text.contains(other), "people of the other organization are not named");
    }
}

#[tokio::test]
async fn what_follows_from_an_act_is_in_the_logs_of_both_sides() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (first, second) = (pair.connection("Orders").await, pair.connection("Results").await);
    let channels: Vec<Channel> = pair.lab.list("/channels").await;
    let grants: Vec<Grant> = pair.lab.list("/grants").await;
    assert_eq!(pair.lab.send("DELETE", &format!("/channels/{}", channels[0].id), None).await.status(), 204);
    assert_eq!(pair.lab.send("DELETE", &format!("/servers/{}", pair.lab_server.id), None).await.status(), 204);
    for org in [&pair.lab, &pair.hospital] {
        let log: Vec<AuditEntry> = org.list("/audit").await;
        for (act, object) in [
            ("connection.terminate", &first),
            ("connection.terminate", &second),
            ("grant.close", &grants[0].id.to_string()),
            ("grant.close", &grants[1].id.to_string()),
        ] {
            let entry = log.iter().find(|entry| entry.act == act && entry.object == *object);
            let entry = entry.unwrap_or_else(|| panic!("{act} {object} is missing in the log of {}", org.id));
            assert!(entry.detail.contains("status: "), "{entry:?}");
        }
    }
}

#[tokio::test]
async fn every_entry_that_a_request_made_has_the_id_that_its_answer_carries() {
    let control = Control::start().await;
    let id = |answer: &reqwest::Response| answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let by_operator = |method: &str, path: &str, token: &str| {
        control.request(method, path).header("authorization", format!("Operator {token}"))
    };
    let hospital = control.organization("Hospital").await;
    let server = hospital.server("main").await;
    hospital.enroll(&server, &Gateway::new(1)).await;
    let login = async |password: &str| {
        let body = json!({"email": hospital.session.user.email, "password": password});
        id(&control.request("POST", "/api/v1/sessions").json(&body).send().await.unwrap())
    };
    let (signed_in, refused) = (login("correct horse battery").await, login("wrong horse battery").await);
    let invitation = json!({"email": "new@hospital.example", "name": "New", "role": "viewer"});
    let invitation: CreatedInvitation = hospital.post("/invitations", invitation).await;
    let accept = json!({"code": invitation.code.0, "password": "another long password"});
    let accepted = control.request("POST", "/api/v1/invitations/accept").json(&accept).send().await.unwrap();
    assert_eq!(accepted.status(), 201);
    let path = format!("/api/v1/organizations/{}/tier", hospital.id);
    let assign = by_operator("PUT", &path, &control.operator).json(&json!({"tier": "standard"}));
    let assigned = assign.send().await.unwrap();
    assert_eq!(assigned.status(), 204);
    let stranger = id(&by_operator("GET", "/api/v1/platform/audit", "gwo_wrong").send().await.unwrap());

    // What is refused is written down beside the answer.
    let logs = async {
        loop {
            let log: Vec<AuditEntry> = hospital.list("/audit?limit=200").await;
            let platform = by_operator("GET", "/api/v1/platform/audit", &control.operator).send().await.unwrap();
            let platform = platform.json::<Page<AuditEntry>>().await.unwrap().items;
            let has = |log: &[AuditEntry], act: &str| log.iter().any(|entry| entry.act == act);
            if has(&log, "session.refuse") && has(&platform, "operator.refuse") {
                return (log, platform);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (log, platform) = tokio::time::timeout(LIMIT, logs).await.expect("a refusal is not in its log");
    for (log, act, request) in [
        (&log, "session.create", &signed_in),
        (&log, "session.refuse", &refused),
        (&log, "invitation.accept", &id(&accepted)),
        (&log, "organization.assign_tier", &id(&assigned)),
        (&platform, "organization.assign_tier", &id(&assigned)),
        (&platform, "operator.refuse", &stranger),
    ] {
        let entry = log.iter().find(|entry| entry.act == act).unwrap();
        assert_eq!(entry.request_id, *request, "{act}");
    }
    for entry in log.iter().chain(&platform) {
        assert_eq!(entry.request_id.len(), 16, "{entry:?}");
    }
}

#[tokio::test]
async fn secrets_are_stored_as_hashes_where_a_hash_will_do() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let server = hospital.server("main").await;
    let code = hospital.code(&server).await;
    let token = hospital.token.clone();
    let operator = control.operator.clone();
    let directory = control.stop().await;
    let bytes = database::contents(directory.path());
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("Hospital"), "the database is what we look into");
    for secret in [code.secret.as_str(), &token, &operator, "correct horse battery"] {
        assert!(!holds(secret), "a secret is in the database in plain text");
    }
    if let Ok(file) = std::fs::metadata(directory.path().join("data/control.sqlite")) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.permissions());
        assert_eq!(mode & 0o077, 0, "the database is for its owner only");
    }
    database::open(directory.path()).await.ping().await.unwrap();
}

#[tokio::test]
async fn the_log_of_the_platform_is_read_and_verified_by_its_operator() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let ask = async |scheme: &str, token: &str, path: &str| {
        let request =
            control.request("GET", &format!("/api/v1{path}")).header("authorization", format!("{scheme} {token}"));
        request.send().await.unwrap()
    };
    let body = serde_json::json!({"max_servers": 1, "admin_read_write": false, "initial": false});
    let put =
        control.request("PUT", "/api/v1/tiers/small").header("authorization", format!("Operator {}", control.operator));
    assert_eq!(put.json(&body).send().await.unwrap().status(), 200);
    let page = ask("Operator", &control.operator, "/platform/audit?order=oldest").await;
    let log = page.json::<Page<AuditEntry>>().await.unwrap().items;
    let anchor: AuditAnchor = ask("Operator", &control.operator, "/platform/audit/anchor").await.json().await.unwrap();
    assert_eq!(anchor.sequence, 0);
    verify(PLATFORM_CHAIN, &log).unwrap();
    let acts: Vec<_> = log.iter().map(|entry| (entry.act.as_str(), entry.actor.as_str())).collect();
    assert!(acts.contains(&("tier.put", "operator")), "{acts:?}");
    let made = log.iter().find(|entry| entry.act == "organization.create").unwrap();
    assert!(made.object == hospital.id && !made.actor.contains('@'), "{made:?}");
    for (scheme, token) in
        [("Bearer", hospital.token.as_str()), ("Operator", "gwo_wrong"), ("Operator", &hospital.token)]
    {
        for path in ["/platform/audit", "/platform/audit/anchor"] {
            assert_eq!(ask(scheme, token, path).await.status(), 401, "{scheme} {path}");
        }
    }
}
