//! Admin connections that a second person approves.

use std::time::Duration;

use gateway_proto::{
    api::platform::{AccessEntry, Connection, ServerShare},
    peering::ConnectionStatus,
};
use serde_json::{Value, json};

use super::super::{
    harness::{Control, Gateway, Org, PASSWORD},
    tenants::sub,
};

#[tokio::test]
async fn where_two_persons_are_demanded_the_second_one_is_another() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let before = pair.offer(json!({})).await;
    let demand = async |org: &Org<'_>, on: bool| {
        org.send("PATCH", "/organization", Some(json!({"two_person_admin": on}))).await.status().as_u16()
    };
    let (admin, operator) = (pair.lab.user("admin").await, pair.lab.user("operator").await);
    assert_eq!(demand(&operator, true).await, 403);
    assert_eq!(demand(&admin, true).await, 200);
    assert_eq!(demand(&admin, false).await, 403, "only an owner gives it up");
    let accepted: Connection = pair.hospital.post(&format!("/connections/{}/accept", before.id), json!({})).await;
    assert_eq!(accepted.status, ConnectionStatus::Ready, "what was offered before goes on");
    let _: Connection = pair.lab.post(&format!("/connections/{}/terminate", before.id), json!({})).await;

    let offer = pair.offer(json!({})).await;
    assert_eq!(offer.status, ConnectionStatus::Provisioning);
    let names = |connection: &Connection| {
        let approval = connection.admin.as_ref().unwrap().approval.clone().unwrap();
        (approval.offered_by, approval.approved_by, approval.approved_at.is_some())
    };
    let owner = pair.lab.session.user.name.clone();
    assert_eq!(names(&offer), (Some(owner.clone()), None, false));
    let seen = pair.hospital.connection(&offer.id.to_string()).await;
    assert_eq!(names(&seen), (None, None, false), "the partner learns no names");
    let path = format!("/connections/{}", offer.id);
    let (accept, approve) = (format!("{path}/accept"), format!("{path}/approve"));
    assert_eq!(pair.hospital.refused("POST", &accept, Some(json!({}))).await.code, "wrong_state");
    assert_eq!(pair.hospital.refused("POST", &approve, None).await.code, "wrong_state", "not the partner's to approve");
    assert_eq!(pair.lab.refused("POST", &approve, None).await.code, "forbidden", "not the first person again");
    assert_eq!(operator.refused("POST", &approve, None).await.code, "forbidden");
    for act in ["activate", "resume", "retry"] {
        assert_eq!(pair.lab.refused("POST", &format!("{path}/{act}"), Some(json!({}))).await.code, "wrong_state");
    }
    let token: Value = admin.post("/api-tokens", json!({"name": "x", "scopes": ["admin"]})).await;
    let mut automation = admin.again();
    automation.token = token["token"].as_str().unwrap().to_owned();
    assert_eq!(automation.refused("POST", &approve, None).await.code, "forbidden", "a person, not a program");

    control.clock.advance(Duration::from_secs(3600));
    let approved: Connection = admin.post(&approve, json!({})).await;
    assert_eq!(approved.status, ConnectionStatus::Offered);
    assert_eq!(names(&approved), (Some(owner), Some("admin".to_owned()), true));
    let terms = approved.admin.clone().unwrap();
    // The clock runs on between the two acts.
    let later = terms.answer_by - offer.admin.unwrap().answer_by;
    assert!((3600..3660).contains(&later), "the partner has its seven days: {later}");
    let again: Connection = admin.post(&approve, json!({})).await;
    assert_eq!(again, approved, "a repetition changes nothing");
    let accepted: Connection = pair.hospital.post(&accept, json!({})).await;
    assert_eq!(accepted.status, ConnectionStatus::Ready);
    for org in [&pair.lab, &pair.hospital] {
        let entries: Vec<Value> = org.list("/audit?act=admin.approve").await;
        assert_eq!(entries.len(), 1, "{entries:?}");
    }

    // Nobody answers: it expires as every offer does.
    let waits = pair.offer(json!({})).await;
    control.clock.advance(Duration::from_secs(7 * 24 * 3600));
    let lab = pair.lab.sign_in().await;
    let admin = control.sign_in(&admin.session.user.email, PASSWORD).await;
    let approve = format!("/connections/{}/approve", waits.id);
    assert_eq!(admin.refused("POST", &approve, None).await.code, "wrong_state");
    assert_eq!(demand(&lab, false).await, 200);
}

#[tokio::test]
async fn a_tenant_demands_two_persons_of_all_of_it_and_shares_are_no_way_around() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let demand = json!({"two_person_admin": true});
    let other = control.organization("Other tenant").await;
    other.send("PATCH", "/organization", Some(demand.clone())).await;
    assert_eq!(pair.offer(json!({})).await.status, ConnectionStatus::Offered, "others demand it of themselves only");
    pair.lab.send("PATCH", "/organization", Some(demand)).await;
    let admin = pair.lab.user("admin").await;
    let share = |level: &str| json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": level});
    let share: ServerShare = pair.lab.post("/server-shares", share("viewer")).await;
    let tunnel = pair.hospital.connection(&share.connections[0].to_string()).await;
    assert_eq!(
        (tunnel.status, tunnel.sender.server_id),
        (ConnectionStatus::Provisioning, Some(pair.hospital_server.id))
    );
    let is_in_force = async || {
        let access: Vec<AccessEntry> = pair.lab.list(&format!("/servers/{}/access", pair.lab_server.id)).await;
        access.into_iter().find(|entry| entry.id == tunnel.id.to_string()).map(|entry| entry.in_force)
    };
    assert_eq!(is_in_force().await, Some(false), "nobody has access before the second person said so");
    let mut watch = pair.hospital_gateway.watch(&control).await;
    assert!(watch.policy().await.connections.is_empty());
    let approve = format!("/connections/{}/approve", tunnel.id);
    assert_eq!(pair.lab.refused("POST", &approve, None).await.code, "forbidden", "who shared it is the first person");
    let open: Connection = admin.post(&approve, json!({})).await;
    assert_eq!(open.status, ConnectionStatus::Ready);
    watch.policy_until(|policy| policy.connections.len() == 1).await;
    assert_eq!(is_in_force().await, Some(true));

    // A subsidiary cannot switch off what its tenant demands.
    let sub = sub(&control, &pair.lab, "Sub").await;
    let server = sub.server("sub engine").await;
    sub.enroll(&server, &Gateway::new(9)).await;
    let request: Value = sub.post("/peering-requests", json!({"organization_id": sub.id})).await;
    sub.send("PATCH", "/organization", Some(json!({"two_person_admin": false}))).await;
    let body = json!({"agreement_id": request["agreement_id"], "server_id": server.id, "user_server_id": server.id});
    let own: Connection = sub.post("/admin-connections", body).await;
    assert_eq!(own.status, ConnectionStatus::Provisioning);
    let second = sub.person("admin", "second").await;
    let open: Connection = second.post(&format!("/connections/{}/approve", own.id), json!({})).await;
    assert_eq!(open.status, ConnectionStatus::Ready, "inside a self-agreement it is accepted with that");
}
