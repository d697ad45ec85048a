use std::time::Duration;

use gateway_proto::{
    api::{
        gateway::WatchEvent,
        platform::{AuditEntry, OpenEnrollmentCode, Server},
    },
    peering::ConnectionStatus,
};
use serde_json::json;

use super::harness::{Control, Gateway};

#[tokio::test]
async fn a_code_is_bound_to_the_key_that_used_it() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let server = hospital.server("main").await;
    let code = hospital.code(&server).await;
    let (gateway, thief) = (Gateway::new(1), Gateway::new(2));
    let first = gateway.enroll(&control, &code.secret).await.unwrap();
    let again = gateway.enroll(&control, &code.secret).await.unwrap();
    assert_eq!(first.policy, again.policy, "the same key and code get the same policy");
    control.clock.advance(Duration::from_secs(601));
    let late = gateway.enroll(&control, &code.secret).await.unwrap_err();
    assert_eq!(late.code, "enrollment_code", "whoever captured the request gets nothing from it later");
    assert_eq!(thief.enroll(&control, &code.secret).await.unwrap_err().code, "enrollment_code");
    let shown: Server = hospital.get(&format!("/servers/{}", server.id)).await;
    assert_eq!(shown.gateway, Some(gateway.key.public()));
    let log: Vec<AuditEntry> = hospital.list("/audit").await;
    assert!(log.iter().any(|entry| entry.act == "gateway.enroll_refused"), "{log:?}");
}

#[tokio::test]
async fn expired_replaced_and_invented_codes_are_refused() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let server = hospital.server("main").await;
    let gateway = Gateway::new(1);
    let old = hospital.code(&server).await;
    let new = hospital.code(&server).await;
    assert_eq!(gateway.enroll(&control, &old.secret).await.unwrap_err().code, "enrollment_code");
    assert_eq!(gateway.enroll(&control, &"0".repeat(32)).await.unwrap_err().code, "enrollment_code");
    assert_eq!(gateway.enroll(&control, "").await.unwrap_err().code, "enrollment_code");
    control.clock.advance(Duration::from_secs(3_600));
    let problem = gateway.enroll(&control, &new.secret).await.unwrap_err();
    assert_eq!(problem.code, "enrollment_code");
    assert!(problem.detail.contains("expired"), "{}", problem.detail);
    let body = json!({"valid_secs": 59});
    let path = format!("/servers/{}/enrollment-codes", server.id);
    assert_eq!(hospital.refused("POST", &path, Some(body)).await.code, "invalid");
}

#[tokio::test]
async fn a_code_that_nobody_used_is_seen_by_its_id_and_revoked() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let admin = hospital.user("admin").await;
    let server = hospital.server("main").await;
    let path = format!("/servers/{}/enrollment-codes", server.id);
    assert!(hospital.list::<OpenEnrollmentCode>(&path).await.is_empty());
    let code = admin.code(&server).await;
    let answer = hospital.send("GET", &path, None).await.text().await.unwrap();
    assert!(!answer.contains(&code.secret) && !answer.contains("gwe"), "{answer}");
    let open: Vec<OpenEnrollmentCode> = hospital.list(&path).await;
    assert_eq!((open.len(), open[0].issued_by.as_deref()), (1, Some(admin.session.user.email.as_str())));
    let other = hospital.server("other").await;
    let revoke = format!("{path}/{}", open[0].id);
    let elsewhere = revoke.replace(&server.id.to_string(), &other.id.to_string());
    assert_eq!(hospital.refused("DELETE", &elsewhere, None).await.code, "not_found");
    assert_eq!(hospital.send("DELETE", &revoke, None).await.status(), 204);
    assert_eq!(hospital.refused("DELETE", &revoke, None).await.code, "not_found");
    assert_eq!(Gateway::new(1).enroll(&control, &code.secret).await.unwrap_err().code, "enrollment_code");
    assert!(hospital.list::<OpenEnrollmentCode>(&path).await.is_empty());
    let log: Vec<AuditEntry> = hospital.list("/audit?act=enrollment_code.delete").await;
    assert_eq!((log[0].object.clone(), log[0].detail.clone()), (server.id.to_string(), open[0].id.to_string()));
    // Used, it is its gateway's: there is nothing to see and nothing to revoke; nor is there when it ended.
    let code = hospital.code(&server).await;
    let open: Vec<OpenEnrollmentCode> = hospital.list(&path).await;
    Gateway::new(1).enroll(&control, &code.secret).await.unwrap();
    assert!(hospital.list::<OpenEnrollmentCode>(&path).await.is_empty());
    assert_eq!(hospital.refused("DELETE", &format!("{path}/{}", open[0].id), None).await.code, "not_found");
    hospital.code(&server).await;
    control.clock.advance(Duration::from_secs(3_600));
    assert!(hospital.list::<OpenEnrollmentCode>(&path).await.is_empty());
}

#[tokio::test]
async fn an_enrolment_without_the_private_key_is_refused() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let server = hospital.server("main").await;
    let code = hospital.code(&server).await;
    let (gateway, other) = (Gateway::new(1), Gateway::new(2));
    let forged = Gateway { key: gateway.key.clone(), noise: other.noise };
    assert_eq!(forged.enroll(&control, &code.secret).await.unwrap_err().code, "invalid");
    gateway.enroll(&control, &code.secret).await.unwrap();
}

#[tokio::test]
async fn a_gateway_belongs_to_one_server() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let (a, b) = (hospital.server("a").await, hospital.server("b").await);
    let gateway = Gateway::new(1);
    hospital.enroll(&a, &gateway).await;
    let code = hospital.code(&b).await;
    assert_eq!(gateway.enroll(&control, &code.secret).await.unwrap_err().code, "conflict");
    // The code is not used up by the mistake.
    Gateway::new(2).enroll(&control, &code.secret).await.unwrap();
}

#[tokio::test]
async fn a_new_gateway_of_a_server_replaces_the_old_one_and_the_connections_go_on() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut old, mut lab) = pair.watches().await;
    old.policy().await;
    lab.policy().await;
    pair.lab.until(&id, "active", |c| c.status == ConnectionStatus::Active).await;
    let fresh = Gateway::new(9);
    pair.hospital.enroll(&pair.hospital_server, &fresh).await;
    loop {
        match old.event().await.expect("closed without a word") {
            WatchEvent::Removed => break,
            WatchEvent::Policy { policy } => {
                assert!(old.store.accept(&policy).unwrap(), "nothing of the new gateway is sent to the old one");
            }
            WatchEvent::Delta { .. }
            | WatchEvent::Succession { .. }
            | WatchEvent::RelayToken { .. }
            | WatchEvent::AuditHead { .. }
            | WatchEvent::RunsTwice(_)
            | WatchEvent::Heartbeat { .. } => {}
        }
    }
    lab.policy_until(|policy| policy.peers[0].key == fresh.key.public()).await;
    let mut fresh_watch = fresh.watch(&control).await;
    assert_eq!(fresh_watch.policy().await.connections.len(), 1);
    // The old one learns it also when it was away, and cannot come back with the old code.
    let mut back = pair.hospital_gateway.watch(&control).await;
    assert_eq!(back.event().await, Some(WatchEvent::Removed));
}

#[tokio::test]
async fn a_connection_made_before_enrolment_waits_for_it() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let (sender, receiver) = (hospital.server("main").await, lab.server("lis").await);
    let agreement = hospital.agree_with(&lab).await;
    let channel = lab.channel(&receiver, "Orders").await;
    let grant: gateway_proto::api::platform::Grant =
        lab.post("/grants", json!({"agreement_id": agreement, "channel_id": channel.id})).await;
    let grant: gateway_proto::api::platform::Grant =
        hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    let id = grant.connection_id.unwrap().to_string();
    lab.enroll(&receiver, &Gateway::new(2)).await;
    assert_eq!(lab.connection(&id).await.status, ConnectionStatus::Provisioning);
    hospital.enroll(&sender, &Gateway::new(1)).await;
    assert_eq!(lab.connection(&id).await.status, ConnectionStatus::Ready);
}
