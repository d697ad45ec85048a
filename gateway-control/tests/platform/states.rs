use std::time::Duration;

use gateway_proto::{
    api::platform::{AuditEntry, Grant, PeeringRequest},
    id::ServerId,
    peering::{ConnectionStatus, GrantStatus, PeeringStatus},
};
use serde_json::{Value, json};

use super::harness::{Control, Gateway, Org};

async fn wrong_state(org: &Org<'_>, path: &str, acts: &[&str]) {
    for act in acts {
        let problem = org.refused("POST", &format!("{path}/{act}"), Some(json!({}))).await;
        assert_eq!((problem.code.as_str(), problem.status), ("wrong_state", 409), "{path}/{act}: {}", problem.detail);
    }
}

#[tokio::test]
async fn forbidden_steps_of_a_peering_request_are_wrong_state() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let ask = async || hospital.post::<PeeringRequest>("/peering-requests", json!({"organization_id": lab.id})).await;
    let request = ask().await;
    let path = format!("/peering-requests/{}", request.id);
    wrong_state(&hospital, &path, &["accept", "decline"]).await;
    wrong_state(&lab, &path, &["withdraw"]).await;
    assert_eq!(
        lab.refused("POST", "/peering-requests", Some(json!({"organization_id": hospital.id}))).await.code,
        "conflict"
    );
    let declined: PeeringRequest = lab.post(&format!("{path}/decline"), json!({})).await;
    assert_eq!(declined.status, PeeringStatus::Declined);
    let again: PeeringRequest = lab.post(&format!("{path}/decline"), json!({})).await;
    assert_eq!(again, declined, "repeating an act changes nothing");
    wrong_state(&lab, &path, &["accept", "withdraw"]).await;
    wrong_state(&hospital, &path, &["withdraw"]).await;

    let request = ask().await;
    control.clock.advance(Duration::from_secs(14 * 24 * 3600));
    let hospital = hospital.sign_in().await;
    let lab = lab.sign_in().await;
    let shown: Vec<PeeringRequest> = hospital.list("/peering-requests").await;
    assert_eq!(shown[1].status, PeeringStatus::Expired, "expiry does not wait for the reconciler");
    wrong_state(&lab, &format!("/peering-requests/{}", request.id), &["accept", "decline"]).await;
    hospital.agree_with(&lab).await;
}

#[tokio::test]
async fn forbidden_steps_of_a_grant_are_wrong_state() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    let channel = lab.channel(&pair.lab_server, "Orders").await;
    let body = json!({"agreement_id": pair.agreement, "channel_id": channel.id});

    let grant: Grant = lab.post("/grants", body.clone()).await;
    let path = format!("/grants/{}", grant.id);
    assert_eq!(lab.refused("POST", "/grants", Some(body.clone())).await.code, "conflict");
    wrong_state(lab, &path, &["approve", "deny", "revoke", "surrender"]).await;
    wrong_state(hospital, &path, &["withdraw", "revoke", "surrender"]).await;
    let _: Grant = lab.post(&format!("{path}/withdraw"), json!({})).await;
    wrong_state(hospital, &path, &["approve", "deny", "surrender"]).await;
    wrong_state(lab, &path, &["revoke"]).await;

    // Asked for by the peer: the owner answers.
    let grant: Grant = hospital.post("/grants", body.clone()).await;
    assert_eq!((grant.status, grant.direction.as_str()), (GrantStatus::Requested, "received"));
    let path = format!("/grants/{}", grant.id);
    wrong_state(hospital, &path, &["approve", "deny", "surrender"]).await;
    wrong_state(lab, &path, &["withdraw", "revoke"]).await;
    let grant: Grant = lab.post(&format!("{path}/approve"), json!({})).await;
    assert_eq!(grant.status, GrantStatus::Active);
    wrong_state(lab, &path, &["deny", "surrender"]).await;
    wrong_state(hospital, &path, &["deny", "withdraw", "revoke"]).await;
    let given_back: Grant = hospital.post(&format!("{path}/surrender"), json!({})).await;
    assert_eq!(given_back.status, GrantStatus::Surrendered);
    let connection = lab.connection(&grant.connection_id.unwrap().to_string()).await;
    assert_eq!(connection.status, ConnectionStatus::Terminated);
    wrong_state(lab, &path, &["approve", "revoke"]).await;
}

#[tokio::test]
async fn forbidden_steps_of_a_connection_and_an_agreement_are_wrong_state() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let path = format!("/connections/{id}");
    wrong_state(&pair.lab, &path, &["pause", "resume"]).await;
    let _: Value = pair.lab.post(&format!("{path}/activate"), json!({})).await;
    wrong_state(&pair.lab, &path, &["retry"]).await;
    let _: Value = pair.hospital.post(&format!("{path}/pause"), json!({})).await;
    let _: Value = pair.hospital.post(&format!("{path}/pause"), json!({})).await;
    wrong_state(&pair.lab, &path, &["activate", "retry"]).await;
    let _: Value = pair.hospital.post(&format!("{path}/terminate"), json!({})).await;
    let _: Value = pair.lab.post(&format!("{path}/terminate"), json!({})).await;
    wrong_state(&pair.lab, &path, &["activate", "pause", "resume", "retry"]).await;
    let open: Vec<Value> = pair.lab.list("/connections").await;
    let all: Vec<Value> = pair.lab.list("/connections?ended=true").await;
    assert_eq!((open.len(), all.len()), (0, 1));
    let grants: Vec<Grant> = pair.lab.list("/grants").await;
    assert_eq!(grants[0].status, GrantStatus::Surrendered, "the connection was the only use of the grant");

    let path = format!("/agreements/{}", pair.agreement);
    let _: Value = pair.lab.post(&format!("{path}/end"), json!({})).await;
    let _: Value = pair.hospital.post(&format!("{path}/end"), json!({})).await;
    wrong_state(&pair.lab, &path, &["suspend", "resume"]).await;
    let channel = pair.lab.channel(&pair.lab_server, "Late").await;
    let body = json!({"agreement_id": pair.agreement, "channel_id": channel.id});
    assert_eq!(pair.lab.refused("POST", "/grants", Some(body)).await.code, "wrong_state");
    pair.hospital.agree_with(&pair.lab).await;
}

#[tokio::test]
async fn a_grant_that_ends_takes_its_connection_along() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let channel = pair.lab.channel(&pair.lab_server, "Orders").await;
    let end = control.clock.unix_secs() + 3600;
    let body = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "expires_at": end});
    let grant: Grant = pair.lab.post("/grants", body).await;
    let grant: Grant = pair.hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    assert_eq!(watch.policy().await.connections[0].expires_at, Some(end));
    control.clock.advance(Duration::from_secs(3600));
    let id = grant.connection_id.unwrap().to_string();
    pair.lab.until(&id, "expired", |c| c.status == ConnectionStatus::Expired).await;
    watch.policy_until(|policy| policy.connections.is_empty()).await;
    let grant: Grant = pair.lab.get(&format!("/grants/{}", grant.id)).await;
    assert_eq!(grant.status, GrantStatus::Expired);
}

#[tokio::test]
async fn limits_of_a_grant_are_in_both_policies_and_shown_to_both_sides_and_one_without_is_as_it_was() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let grant = async |name: &str, limits: Value| {
        let channel = pair.lab.channel(&pair.lab_server, name).await;
        let mut body = json!({"agreement_id": pair.agreement, "channel_id": channel.id});
        body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let grant: Grant = pair.lab.post("/grants", body).await;
        pair.hospital.post::<Grant>(&format!("/grants/{}/approve", grant.id), json!({})).await
    };
    let limits = json!({"bytes_per_second": 1_000, "receive_timeout_secs": 10, "behaviors": ["tcp", "hl7v2-mllp"]});
    let (plain, limited) = (grant("Orders", json!({})).await, grant("Results", limits).await);
    for side in [&pair.lab, &pair.hospital] {
        let shown: Grant = side.get(&format!("/grants/{}", limited.id)).await;
        assert_eq!((shown.bytes_per_second, shown.receive_timeout_secs), (Some(1_000), Some(10)));
        assert_eq!(shown.behaviors, ["hl7v2-mllp", "tcp"]);
        let shown: Grant = side.get(&format!("/grants/{}", plain.id)).await;
        assert_eq!((shown.bytes_per_second, shown.receive_timeout_secs, shown.behaviors), (None, None, vec![]));
    }
    for gateway in [&pair.lab_gateway, &pair.hospital_gateway] {
        let mut watch = gateway.watch(&control).await;
        let policy = watch.policy_until(|policy| policy.connections.len() == 2).await;
        let of = |grant: &Grant| policy.connection(grant.connection_id.unwrap()).unwrap();
        let limits = of(&limited).limits;
        assert_eq!((limits.bytes_per_second, limits.receive_timeout_secs), (Some(1_000), Some(10)));
        let text = serde_json::to_string(of(&plain)).unwrap();
        assert!(!text.contains("limits"), "{text}");
    }
}

#[tokio::test]
async fn limits_out_of_range_and_behaviors_without_the_channels_are_refused() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let channel = pair.lab.channel(&pair.lab_server, "Orders").await;
    for (field, value, code) in [
        ("bytes_per_second", json!(999), "invalid"),
        ("bytes_per_second", json!(10_000_000_001_u64), "invalid"),
        ("receive_timeout_secs", json!(9), "invalid"),
        ("receive_timeout_secs", json!(604_801), "invalid"),
        ("behaviors", json!(["unheard-of"]), "invalid"),
        ("behaviors", json!(["http"]), "conflict"),
    ] {
        let mut body = json!({"agreement_id": pair.agreement, "channel_id": channel.id});
        body[field] = value;
        // Whoever offers and whoever asks.
        for side in [&pair.lab, &pair.hospital] {
            assert_eq!(side.refused("POST", "/grants", Some(body.clone())).await.code, code, "{body}");
        }
    }
}

#[tokio::test]
async fn a_connection_whose_channel_became_another_kind_of_exchange_than_was_granted_leaves_both_policies() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let channel = pair.lab.channel(&pair.lab_server, "Orders").await;
    let body = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "behaviors": ["hl7v2-mllp"]});
    let grant: Grant = pair.lab.post("/grants", body).await;
    let _: Grant = pair.hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    let mut watch = pair.lab_gateway.watch(&control).await;
    watch.policy_until(|policy| policy.connections.len() == 1).await;
    drop(watch);
    drop(pair);
    let directory = control.stop().await;
    // No call of the API does that; an operator with the database at hand might.
    const TEXTS: [&str; 2] = ["UPDATE channels SET behavior = 'http'", "UPDATE servers SET stale = TRUE"];
    super::database::execute(directory.path(), &TEXTS);
    let control = Control::start_in(directory, "").await;
    let mut watch = Gateway::new(2).watch(&control).await;
    watch.policy_until(|policy| policy.connections.is_empty()).await;
}

#[tokio::test]
async fn a_connection_is_over_in_the_second_its_grant_is() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let channel = pair.lab.channel(&pair.lab_server, "Orders").await;
    let end = control.clock.unix_secs() + 3600;
    let body = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "expires_at": end});
    let grant: Grant = pair.lab.post("/grants", body).await;
    let grant: Grant = pair.hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    let id = grant.connection_id.unwrap().to_string();
    let _: Value = pair.lab.post(&format!("/connections/{id}/activate"), json!({})).await;
    control.clock.advance(Duration::from_secs(3600));
    // Nobody has written anything down yet.
    assert_eq!(pair.hospital.connection(&id).await.status, ConnectionStatus::Expired);
    let listed: Vec<Value> = pair.lab.list("/connections?ended=true").await;
    assert_eq!(listed[0]["status"], "expired");
    wrong_state(&pair.lab, &format!("/connections/{id}"), &["pause", "terminate"]).await;
}

#[tokio::test]
async fn what_time_has_ended_stays_expired_whatever_goes_from_under_it() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    let spare = hospital.server("spare").await;
    let end = control.clock.unix_secs() + 3600;
    let granted = async |name: &str, sender: ServerId| {
        let channel = lab.channel(&pair.lab_server, name).await;
        let body = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "expires_at": end});
        let grant: Grant = lab.post("/grants", body).await;
        let path = format!("/grants/{}/approve", grant.id);
        hospital.post::<Grant>(&path, json!({"sender_server_id": sender})).await
    };
    let main = pair.hospital_server.id;
    let grants = [granted("One", main).await, granted("Two", spare.id).await, granted("Three", main).await];
    control.clock.advance(Duration::from_secs(3600));
    // Before the reconciler comes: the channel, the sending server and the agreement of one each.
    let channel = format!("/channels/{}", grants[0].channel_id);
    assert_eq!(lab.send("DELETE", &channel, None).await.status(), 204);
    assert_eq!(hospital.send("DELETE", &format!("/servers/{}", spare.id), None).await.status(), 204);
    let _: Value = lab.post(&format!("/agreements/{}/end", pair.agreement), json!({})).await;
    for grant in &grants {
        let shown: Grant = hospital.get(&format!("/grants/{}", grant.id)).await;
        assert_eq!(shown.status, GrantStatus::Expired, "{}", shown.endpoint);
        let connection = lab.connection(&grant.connection_id.unwrap().to_string()).await;
        assert_eq!(connection.status, ConnectionStatus::Expired, "{}", shown.endpoint);
    }
    for (act, times) in [("grant.expire", 3), ("connection.expire", 3), ("grant.close", 0), ("connection.terminate", 0)]
    {
        for org in [hospital, lab] {
            assert_eq!(org.list::<AuditEntry>(&format!("/audit?act={act}")).await.len(), times, "{act}");
        }
    }
}

#[tokio::test]
async fn a_request_that_nobody_answered_in_time_stays_expired_when_its_organization_goes() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let _: PeeringRequest = hospital.post("/peering-requests", json!({"organization_id": lab.id})).await;
    control.clock.advance(Duration::from_secs(14 * 24 * 3600));
    let (hospital, lab) = (hospital.sign_in().await, lab.sign_in().await);
    assert_eq!(lab.send("DELETE", "/organization", None).await.status(), 204);
    let shown: Vec<PeeringRequest> = hospital.list("/peering-requests").await;
    assert_eq!(shown[0].status, PeeringStatus::Expired);
    assert!(hospital.list::<AuditEntry>("/audit?act=peering_request.decline").await.is_empty());
}

#[tokio::test]
async fn a_request_for_a_channel_ends_with_the_server_it_would_be_sent_from() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    let (channel, second) = (lab.channel(&pair.lab_server, "Orders").await, hospital.server("second").await);
    let ask = |server: ServerId| json!({"agreement_id": pair.agreement, "channel_id": channel.id, "sender_server_id": server});
    let grant: Grant = hospital.post("/grants", ask(second.id)).await;
    assert_eq!(hospital.send("DELETE", &format!("/servers/{}", second.id), None).await.status(), 204);
    for org in [hospital, lab] {
        let shown: Grant = org.get(&format!("/grants/{}", grant.id)).await;
        assert_eq!(shown.status, GrantStatus::Revoked);
        let log: Vec<AuditEntry> = org.list("/audit?act=grant.close").await;
        assert_eq!((log.len(), log[0].object.clone()), (1, grant.id.to_string()));
    }
    wrong_state(lab, &format!("/grants/{}", grant.id), &["approve", "deny"]).await;
    // It stands in nobody's way.
    let grant: Grant = hospital.post("/grants", ask(pair.hospital_server.id)).await;
    let grant: Grant = lab.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    assert_eq!(grant.status, GrantStatus::Active);
}

#[tokio::test]
async fn two_connections_cannot_open_the_same_local_port() {
    let control = Control::start().await;
    let pair = control.pair().await;
    for (name, port, refused) in [("One", 7001, false), ("Two", 7001, true), ("Three", 7002, false)] {
        let channel = pair.lab.channel(&pair.lab_server, name).await;
        let body = json!({"agreement_id": pair.agreement, "channel_id": channel.id});
        let grant: Grant = pair.lab.post("/grants", body).await;
        let path = format!("/grants/{}/approve", grant.id);
        let body = json!({"sender_port": port});
        if refused {
            let problem = pair.hospital.refused("POST", &path, Some(body)).await;
            assert_eq!(problem.code, "conflict");
            assert!(problem.detail.contains("7001"), "{}", problem.detail);
        } else {
            let _: Grant = pair.hospital.post(&path, body).await;
        }
    }
}

#[tokio::test]
async fn one_row_that_cannot_be_ended_holds_up_nothing_else() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let end = control.clock.unix_secs() + 3600;
    let offer = async |name: &str| {
        let channel = pair.lab.channel(&pair.lab_server, name).await;
        let body = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "expires_at": end});
        pair.lab.post::<Grant>("/grants", body).await
    };
    offer("Unanswered").await;
    let grant = offer("Orders").await;
    let grant: Grant = pair.hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    let connection = grant.connection_id.unwrap().to_string();
    let lab = pair.lab.detached(&control);
    let (token, session) = (lab.token.clone(), lab.session.clone());
    drop((lab, pair));
    let directory = control.stop().await;
    super::database::execute(directory.path(), &["UPDATE grants SET max_streams = -1 WHERE status = 'pending'"]);
    let control = Control::start_in(directory, "").await;
    control.clock.advance(Duration::from_secs(3600));
    let lab = Org { control: &control, token, id: String::new(), session };
    lab.until(&connection, "expired", |c| c.status == ConnectionStatus::Expired && c.ended_at.is_some()).await;
}

#[tokio::test]
async fn what_time_has_ended_is_in_nobodys_way_before_it_is_written_down() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (hospital, lab, operator) = (&pair.hospital, &pair.lab, pair.lab.user("operator").await);
    let end = control.clock.unix_secs() + 3600;
    let channel = lab.channel(&pair.lab_server, "Orders").await;
    let offer = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "expires_at": end});
    let _: Grant = lab.post("/grants", offer).await;
    let mut share = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": "metrics"});
    share["expires_at"] = json!(end);
    let _: Value = lab.post("/server-shares", share.clone()).await;
    control.clock.advance(Duration::from_secs(3600));
    share["expires_at"] = Value::Null;
    let _: Value = lab.post("/server-shares", share).await;
    let path = format!("/channels/{}", channel.id);
    assert_eq!(operator.send("DELETE", &path, None).await.status(), 204, "nobody is granted it any more");

    // A tunnel that no second person approved in its seven days.
    lab.send("PATCH", "/organization", Some(json!({"two_person_admin": true}))).await;
    let spare = lab.server("spare").await;
    let share = json!({"agreement_id": pair.agreement, "server_id": spare.id, "level": "viewer"});
    let share: Value = lab.post("/server-shares", share).await;
    control.clock.advance(Duration::from_secs(7 * 24 * 3600));
    let hospital = hospital.sign_in().await;
    let path = format!("/server-shares/{}/open", share["id"].as_str().unwrap());
    let tunnel: Value = hospital.post(&path, json!({})).await;
    assert_eq!(tunnel["status"], "provisioning");
    assert_ne!(tunnel["id"], share["connections"][0], "what is over is not opened");
}
