use gateway_net::ws::{StatusCode, WsError};
use gateway_proto::{
    api::gateway::{WatchEvent, WatchRequest},
    api::platform::{Grant, Server},
    api::refusal::{GatewayRefusal, RefusalReason},
    peering::ConnectionStatus,
    policy::{Activation, Policy},
    signed::Assertion,
};
use serde_json::json;

use super::harness::{Control, Gateway, Watch, open_watch, until};

fn carries(policy: &Policy) -> bool {
    policy.connections.iter().any(|connection| connection.activation == Activation::Active)
}

#[tokio::test]
async fn a_revoked_grant_leaves_both_policies_and_nobody_elses() {
    let control = Control::start().await;
    let pair = control.pair().await;
    // A third organization, connected with the lab only.
    let clinic = control.organization("Clinic").await;
    let server = clinic.server("ehr").await;
    let third = Gateway::new(3);
    clinic.enroll(&server, &third).await;
    let mut third = third.watch(&control).await;
    let untouched = third.policy().await.revision;

    let id = pair.connection("Orders").await;
    let (mut one, mut two) = pair.watches().await;
    one.policy().await;
    two.policy().await;
    one.policy_until(carries).await;
    two.policy_until(carries).await;
    let grants: Vec<Grant> = pair.lab.list("/grants").await;
    let revoked: Grant = pair.lab.post(&format!("/grants/{}/revoke", grants[0].id), json!({})).await;
    assert_eq!(revoked.status.as_str(), "revoked");
    assert!(one.policy().await.connections.is_empty());
    assert!(two.policy().await.connections.is_empty());
    assert_eq!(pair.lab.connection(&id).await.status, ConnectionStatus::Terminated);
    let in_force =
        pair.hospital.until(&id, "revoked at both ends", |c| c.sender.policy_in_force && c.listener.policy_in_force);
    in_force.await;

    third.stays_at(untouched).await;
    let shown: Server = clinic.get(&format!("/servers/{}", server.id)).await;
    assert_eq!(shown.policy_revision, untouched);
}

#[tokio::test]
async fn pause_and_suspension_of_either_side_reach_both_gateways() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut one, mut two) = pair.watches().await;
    one.policy().await;
    two.policy().await;
    one.policy_until(carries).await;
    two.policy_until(carries).await;
    let is = |wanted: Activation| move |policy: &Policy| policy.connections[0].activation == wanted;

    let pause = format!("/connections/{id}/pause");
    let resume = format!("/connections/{id}/resume");
    let _: serde_json::Value = pair.lab.post(&pause, json!({})).await;
    one.policy_until(is(Activation::Paused)).await;
    two.policy_until(is(Activation::Paused)).await;
    let _: serde_json::Value = pair.hospital.post(&pause, json!({})).await;
    let _: serde_json::Value = pair.lab.post(&resume, json!({})).await;
    let shown = pair.lab.connection(&id).await;
    assert_eq!(shown.status, ConnectionStatus::Paused, "the hospital still holds its pause");
    assert!(shown.sender.paused && !shown.listener.paused);
    let _: serde_json::Value = pair.hospital.post(&resume, json!({})).await;
    one.policy_until(is(Activation::Active)).await;
    two.policy_until(is(Activation::Active)).await;

    let act = |act: &str| format!("/agreements/{}/{act}", pair.agreement);
    let _: serde_json::Value = pair.lab.post(&act("suspend"), json!({})).await;
    one.policy_until(is(Activation::Suspended)).await;
    two.policy_until(is(Activation::Suspended)).await;
    let _: serde_json::Value = pair.hospital.post(&act("resume"), json!({})).await;
    assert!(pair.hospital.agreement(&pair.agreement).await.suspended_by_peer, "nobody lifts the other's suspension");
    let _: serde_json::Value = pair.lab.post(&act("resume"), json!({})).await;
    one.policy_until(is(Activation::Active)).await;
    two.policy_until(is(Activation::Active)).await;

    let _: serde_json::Value = pair.hospital.post(&act("end"), json!({})).await;
    assert!(one.policy().await.connections.is_empty());
    assert!(two.policy().await.connections.is_empty());
    let grants: Vec<Grant> = pair.lab.list("/grants").await;
    assert_eq!(grants[0].status.as_str(), "revoked");
}

#[tokio::test]
async fn forged_old_replayed_and_misdirected_assertions_are_refused() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let gateway = &pair.hospital_gateway;
    let base = gateway.assertion(&control);
    let sign = |assertion: &Assertion| assertion.sign(&gateway.key).unwrap();
    let refused = async |token: &str, why: &str| match open_watch(&control, token).await {
        Err(WsError::Status { status, .. }) => assert_eq!(status, StatusCode::UNAUTHORIZED, "{why}"),
        Err(error) => panic!("{why}: {error}"),
        Ok(_) => panic!("{why}: accepted"),
    };
    refused(&sign(&Assertion { iat: base.iat - 61, ..base.clone() }), "old").await;
    refused(&sign(&Assertion { iat: base.iat + 120, ..base.clone() }), "from the future").await;
    refused(&sign(&Assertion { aud: gateway.key.public(), ..base.clone() }), "for another control plane").await;
    refused(&sign(&Assertion { path: "/api/v1/gateway/enroll".into(), ..base.clone() }), "for another path").await;
    refused(&sign(&Assertion { nonce: "1".into(), ..base.clone() }), "without a nonce").await;
    refused(&base.sign(&pair.lab_gateway.key).unwrap(), "signed by another key").await;
    let stranger = Gateway::new(77);
    refused(&stranger.assertion(&control).sign(&stranger.key).unwrap(), "not enrolled").await;
    refused("garbage", "garbage").await;
    let token = sign(&base);
    let accepted = open_watch(&control, &token).await.unwrap();
    refused(&token, "replayed").await;
    drop(accepted);
}

#[tokio::test]
async fn a_gateway_that_is_not_let_in_is_told_why() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (gateway, stranger) = (&pair.hospital_gateway, Gateway::new(77));
    let told = async |assertion: Assertion, by: &Gateway| {
        let token = assertion.sign(&by.key).unwrap();
        match open_watch(&control, &token).await {
            Err(WsError::Status { status: StatusCode::UNAUTHORIZED, challenge, .. }) => {
                GatewayRefusal::parse(&challenge.unwrap()).unwrap()
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("let in"),
        }
    };
    let base = || gateway.assertion(&control);
    // As after a restore from before the key was made.
    let strange = told(Assertion { aud: stranger.key.public(), ..base() }, gateway).await;
    assert_eq!(strange.reason, RefusalReason::PolicyKey);
    assert_eq!(told(stranger.assertion(&control), &stranger).await.reason, RefusalReason::NotEnrolled);
    let late = told(Assertion { iat: base().iat - 7_200, ..base() }, gateway).await;
    assert_eq!(late.reason, RefusalReason::Clock);
    assert!(late.now.abs_diff(control.clock.unix_secs()) < 30, "it says what time it is here");
}

#[tokio::test]
async fn a_watch_resumes_by_revision_and_a_newer_one_replaces_it() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    let revision = watch.policy().await.revision;
    let mut second = pair.hospital_gateway.watch_from(&control, revision).await;
    second.stays_at(revision).await;
    while let Some(event) = watch.event().await {
        assert!(!matches!(event, WatchEvent::Removed | WatchEvent::Policy { .. }), "{event:?}");
    }
    // A gateway that knows more than the storage (a restored backup) gets something newer still.
    let mut third = pair.hospital_gateway.watch_from(&control, revision + 50).await;
    let raised = third.policy().await.revision;
    assert!(raised > revision + 50);
    // A revision of a far future cannot have come from us, and harms nobody.
    let mut fourth = pair.hospital_gateway.watch_from(&control, 1 << 53).await;
    while fourth.event().await.is_some() {}
    let mut fifth = pair.hospital_gateway.watch_from(&control, raised).await;
    fifth.stays_at(raised).await;
}

#[tokio::test]
async fn an_assertion_counts_once_also_across_a_restart() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (key, server) = (pair.hospital_gateway.key.clone(), pair.hospital_server.id);
    let token = pair.hospital_gateway.assertion(&control).sign(&key).unwrap();
    let used = pair.hospital_gateway.watch_with(&control, &token).await;
    drop(used.greeted().await);
    let session = pair.hospital.token.clone();
    let directory = control.stop().await;

    let control = Control::start_in(directory, "").await;
    let mut real = Gateway::new(1).watch(&control).await;
    let revision = real.policy().await.revision;
    let mut replayed = Gateway::new(1).watch_with(&control, &token).await;
    assert_eq!(replayed.event().await, None, "a used assertion opened a watch");
    real.stays_at(revision).await;
    let shown = control.request("GET", &format!("/api/v1/servers/{server}")).bearer_auth(session).send().await.unwrap();
    assert!(shown.json::<Server>().await.unwrap().online);
}

#[tokio::test]
async fn revisions_are_times_so_those_after_a_restored_backup_are_higher() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let before = control.clock.unix_ms();
    pair.connection("Orders").await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    let revision = watch.policy().await.revision;
    assert!(before <= revision && revision <= control.clock.unix_ms(), "{revision}");
}

#[tokio::test]
async fn a_gateway_that_says_nonsense_is_cut_off() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy().await;
    let revision = watch.store.revision();
    watch.send(&WatchRequest::Applied { revision: revision + 1_000 }).await;
    while watch.event().await.is_some() {}
    let shown: Server = pair.hospital.get(&format!("/servers/{}", pair.hospital_server.id)).await;
    assert!(shown.applied_revision <= revision);
}

#[tokio::test]
async fn what_a_gateway_refuses_fails_visibly_and_can_be_tried_again() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy().await;
    let id = pair.connection("Orders").await;
    let policy = loop {
        if let WatchEvent::Policy { policy } = watch.event().await.expect("closed") {
            break policy;
        }
    };
    assert!(watch.store.accept(&policy).unwrap());
    let revision = watch.store.revision();
    watch.send(&WatchRequest::Rejected { revision, reason: "cannot read it".into(), in_force: false }).await;
    pair.lab.until(&id, "failed", |c| c.status == ConnectionStatus::Failed).await;
    let shown: Server = pair.hospital.get(&format!("/servers/{}", pair.hospital_server.id)).await;
    assert_eq!(shown.policy_problem.as_deref(), Some("cannot read it"));
    let _: serde_json::Value = pair.lab.post(&format!("/connections/{id}/retry"), json!({})).await;
    assert_eq!(pair.lab.connection(&id).await.status, ConnectionStatus::Ready);
}

/// The next policy that names a connection, as a gateway takes it that cannot say so any more.
async fn taken(watch: &mut Watch, id: &str) -> u64 {
    loop {
        if let WatchEvent::Policy { policy } = watch.event().await.expect("closed") {
            assert!(watch.store.accept(&policy).unwrap());
            let policy = watch.store.current().unwrap();
            if policy.connection(id.parse().unwrap()).is_some() {
                return policy.revision;
            }
        }
    }
}

#[tokio::test]
async fn what_a_gateway_put_into_force_before_its_link_broke_does_not_fail_with_the_next_policy() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy().await;
    let running = pair.connection("Orders").await;
    let in_force = taken(&mut watch, &running).await;
    watch.stream.close(None).await.unwrap();
    while watch.event().await.is_some() {}
    let refused = pair.connection("Results").await;
    let mut watch = pair.hospital_gateway.watch_from(&control, in_force).await;
    let revision = taken(&mut watch, &refused).await;
    assert!(in_force < revision);
    watch.send(&WatchRequest::Rejected { revision, reason: "cannot read it".into(), in_force: false }).await;
    pair.lab.until(&refused, "failed", |c| c.status == ConnectionStatus::Failed).await;
    assert_eq!(pair.lab.connection(&running).await.status, ConnectionStatus::Ready, "it is in force there");
}

#[tokio::test]
async fn a_policy_that_a_gateway_could_not_save_is_shown_as_its_problem_and_nothing_of_it_fails() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy().await;
    let id = pair.connection("Orders").await;
    let revision = taken(&mut watch, &id).await;
    let reason = "the policy is not saved".to_owned();
    watch.send(&WatchRequest::Rejected { revision, reason: reason.clone(), in_force: true }).await;
    let path = format!("/servers/{}", pair.hospital_server.id);
    let problem = async || pair.hospital.get::<Server>(&path).await.policy_problem;
    until("the problem was never shown", async || problem().await.as_ref() == Some(&reason)).await;
    // What a refusal fails is written before anything that is told after it is read.
    watch.send(&WatchRequest::Applied { revision }).await;
    until("the problem was never over", async || problem().await.is_none()).await;
    assert_eq!(pair.lab.connection(&id).await.status, ConnectionStatus::Ready);
    pair.lab_gateway.watch(&control).await.policy().await;
    pair.lab.until(&id, "active", |c| c.status == ConnectionStatus::Active).await;
}

#[tokio::test]
async fn a_removed_server_ends_everything_it_had() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut one, mut two) = pair.watches().await;
    one.policy().await;
    two.policy().await;
    let path = format!("/servers/{}", pair.hospital_server.id);
    assert_eq!(pair.hospital.send("DELETE", &path, None).await.status(), 204);
    two.policy_until(|policy| policy.connections.is_empty()).await;
    while one.event().await.expect("closed without a word") != WatchEvent::Removed {}
    assert_eq!(pair.lab.connection(&id).await.status, ConnectionStatus::Terminated);
    let grants: Vec<Grant> = pair.lab.list("/grants").await;
    assert_eq!(grants[0].status.as_str(), "surrendered");
    assert_eq!(pair.hospital.refused("GET", &path, None).await.code, "not_found");
}
