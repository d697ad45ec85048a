//! What an entry says beyond the act: what was there before, and what is there now, also where the status stays the same.

use gateway_proto::api::{
    Page,
    platform::{AuditEntry, Connection},
};
use serde_json::{Value, json};

use super::super::harness::{Control, Org};

/// The details of the entries of an act, oldest first.
async fn details(org: &Org<'_>, act: &str) -> Vec<String> {
    let log: Vec<AuditEntry> = org.list(&format!("/audit?act={act}&order=oldest")).await;
    log.into_iter().map(|entry| entry.detail).collect()
}

#[tokio::test]
async fn a_pause_or_suspension_of_one_side_is_told_to_both_though_the_status_is_the_other_sides() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    for (org, act) in [(lab, "activate"), (lab, "pause"), (hospital, "pause"), (lab, "resume"), (hospital, "resume")] {
        let _: Value = org.post(&format!("/connections/{id}/{act}"), json!({})).await;
    }
    for (org, act) in [(lab, "suspend"), (hospital, "suspend"), (lab, "resume"), (hospital, "resume")] {
        let _: Value = org.post(&format!("/agreements/{}/{act}", pair.agreement), json!({})).await;
    }
    let by = |org: &Org<'_>, change: &str| format!("suspended by {}: {change}", org.id);
    for org in [hospital, lab] {
        assert_eq!(
            details(org, "connection.pause").await,
            ["status: active → paused; listener paused: false → true", "sender paused: false → true"]
        );
        assert_eq!(
            details(org, "connection.resume").await,
            ["listener paused: true → false", "status: paused → active; sender paused: true → false"]
        );
        assert_eq!(
            details(org, "agreement.suspend").await,
            [format!("status: active → suspended; {}", by(lab, "false → true")), by(hospital, "false → true")]
        );
        assert_eq!(
            details(org, "agreement.resume").await,
            [by(lab, "true → false"), format!("status: suspended → active; {}", by(hospital, "true → false"))]
        );
    }
}

#[tokio::test]
async fn whoever_is_removed_leaves_the_admin_connections_in_the_logs_of_both_sides() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let offer = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id});
    let offer: Connection = pair.lab.post("/admin-connections", offer).await;
    let path = format!("/connections/{}", offer.id);
    let _: Connection = pair.hospital.post(&format!("{path}/accept"), json!({})).await;
    let maria = pair.hospital.user("operator").await;
    let _: Connection = maria.post(&format!("{path}/enter"), json!({"account": "maria"})).await;
    let user = format!("/users/{}", maria.session.user.id);
    assert_eq!(pair.hospital.send("DELETE", &user, None).await.status(), 204);
    for org in [&pair.hospital, &pair.lab] {
        let (entered, left) = (details(org, "admin.enter").await, details(org, "admin.leave").await);
        assert!(entered.len() == 1 && entered[0].starts_with("person: none → behind maria until "), "{entered:?}");
        assert!(left.len() == 1 && left[0].ends_with(" → none") && left[0].contains("behind maria"), "{left:?}");
        let used = format!("used from: none → {}", pair.hospital_server.id);
        assert!(details(org, "admin.accept").await[0].contains(&used), "where it is used from");
    }
    let log: Vec<AuditEntry> = pair.lab.list("/audit?act=admin.leave").await;
    assert_eq!(log[0].actor, "organization Hospital", "it was not she herself, and people are not named to others");
}

#[tokio::test]
async fn the_log_of_the_platform_has_what_was_there_before() {
    let control = Control::start().await;
    let relay = json!({"id": "rly_00000000000070008000000000000000", "name": "North",
        "url": "wss://north.example/relay"});
    let tier = |servers: u32| json!({"max_servers": servers, "admin_read_write": false});
    for (method, path, body) in [
        ("PUT", "/tiers/small", tier(1)),
        ("PUT", "/tiers/small", tier(2)),
        ("PUT", "/tiers/small", tier(2)),
        ("PUT", "/behaviors/dicom-x", json!({"description": "pictures"})),
        ("PUT", "/behaviors/dicom-x", json!({"description": "images"})),
        ("PUT", "/behaviors/dicom-x", json!({"description": "images"})),
        ("DELETE", "/behaviors/dicom-x", json!({})),
        ("POST", "/relays", relay),
        ("DELETE", "/relays/rly_00000000000070008000000000000000", json!({})),
    ] {
        let answer = control.as_operator(method, path, body).await;
        assert!(answer.status().is_success(), "{method} {path}: {:?}", answer.text().await);
    }
    let answer = control.as_operator("GET", "/platform/audit?order=oldest&limit=200", json!({})).await;
    let log = answer.json::<Page<AuditEntry>>().await.unwrap().items;
    let of = |act: &str| -> Vec<_> {
        log.iter().filter(|entry| entry.act == act).map(|entry| entry.detail.as_str()).collect()
    };
    let tiers = of("tier.put");
    assert!(
        tiers.len() == 2 && tiers[0].starts_with("max_servers: none → 1; max_peers: none → unlimited"),
        "{tiers:?}"
    );
    assert_eq!(tiers[1], "max_servers: 1 → 2", "and nothing where nothing was changed");
    assert_eq!(of("behavior.put"), ["description: none → pictures", "description: pictures → images"]);
    assert_eq!(of("behavior.delete"), ["description: images → none"]);
    assert_eq!(of("relay.delete"), ["name: North → none; url: wss://north.example/relay → none"]);
}
