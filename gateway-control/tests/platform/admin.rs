//! Admin connections and shared servers.

mod two_persons;

use std::time::Duration;

use gateway_proto::{
    admin::opening::{ActingUser, KnownBy},
    api::platform::{Connection, ServerShare, ShareLevel},
    peering::ConnectionStatus,
    policy::{Activation, AdminScope, ConnectionKind, LocalEnd},
};
use serde_json::{Value, json};

use super::harness::{Control, Gateway, Pair};

impl Pair<'_> {
    /// The lab's server offered to the hospital.
    async fn offer(&self, more: Value) -> Connection {
        let mut body = json!({"agreement_id": self.agreement, "server_id": self.lab_server.id});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.lab.post("/admin-connections", body).await
    }
}

#[tokio::test]
async fn an_offered_admin_connection_reaches_both_gateways_once_it_is_accepted() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let offer = pair.offer(json!({"scope": {"patient_data": true}, "message": "for the update"})).await;
    assert_eq!((offer.kind, offer.status), (ConnectionKind::AdminReadOnly, ConnectionStatus::Offered));
    assert_eq!((offer.sender.server_id, offer.listener.role.as_str()), (None, "admin_owner"));
    let terms = offer.admin.clone().unwrap();
    assert_eq!(terms.answer_by, offer.created_at + 7 * 24 * 3600);
    let path = format!("/connections/{}", offer.id);

    // Nothing of an offer is in a policy, and only the other side may take it.
    let (mut hospital, mut lab) = pair.watches().await;
    assert!(hospital.policy().await.connections.is_empty() && lab.policy().await.connections.is_empty());
    for (act, org) in [("accept", &pair.lab), ("decline", &pair.lab), ("activate", &pair.hospital)] {
        assert_eq!(org.refused("POST", &format!("{path}/{act}"), Some(json!({}))).await.code, "wrong_state");
    }
    let listed: Vec<Connection> = pair.hospital.list("/connections?kind=admin").await;
    assert_eq!(listed[0].admin, Some(terms));
    assert!(pair.hospital.list::<Connection>("/connections?kind=p2p").await.is_empty());

    let accepted: Connection = pair.hospital.post(&format!("{path}/accept"), json!({"port": 9443})).await;
    assert_eq!((accepted.status, accepted.sender.server_id), (ConnectionStatus::Ready, Some(pair.hospital_server.id)));
    let (user, owner) = (hospital.policy().await, lab.policy().await);
    let (user, owner) = (&user.connections[0], &owner.connections[0]);
    assert_eq!((&user.local, &owner.local), (&LocalEnd::AdminUser { port: 9443 }, &LocalEnd::AdminOwner));
    let scope = AdminScope { patient_data: true, ..AdminScope::default() };
    assert_eq!((user.admin, owner.admin, owner.kind), (scope, scope, ConnectionKind::AdminReadOnly));
    assert_eq!((owner.staleness_secs, user.endpoint.as_str()), (900, "lis"));
    assert_eq!(user.secrets, owner.secrets);
    let active = |policy: &gateway_proto::policy::Policy| policy.connections[0].activation == Activation::Active;
    hospital.policy_until(active).await;
    lab.policy_until(active).await;

    // Either side ends it, and it leaves both policies.
    let _: Value = pair.hospital.post(&format!("{path}/pause"), json!({})).await;
    let _: Value = pair.hospital.post(&format!("{path}/resume"), json!({})).await;
    let ended: Connection = pair.hospital.post(&format!("{path}/terminate"), json!({})).await;
    assert_eq!(ended.status, ConnectionStatus::Terminated);
    hospital.policy_until(|policy| policy.connections.is_empty()).await;
    lab.policy_until(|policy| policy.connections.is_empty()).await;
}

#[tokio::test]
async fn offers_that_make_no_sense_are_refused() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let past = control.clock.unix_secs() - 1;
    let (agreement, server) = (&pair.agreement, pair.lab_server.id);
    let cases = [
        (json!({"agreement_id": agreement, "server_id": pair.hospital_server.id}), "not_found"),
        (json!({"agreement_id": agreement, "server_id": server, "scope": {"probes": true}}), "invalid"),
        (json!({"agreement_id": agreement, "server_id": server, "scope": {"extension_upload": true}}), "invalid"),
        (json!({"agreement_id": agreement, "server_id": server, "expires_at": past}), "invalid"),
        (json!({"agreement_id": agreement, "server_id": server, "staleness_secs": 86_401}), "invalid"),
        (json!({"agreement_id": agreement, "server_id": server, "user_port": 1}), "invalid"),
        (json!({"agreement_id": agreement, "server_id": server, "access": "everything"}), "invalid"),
        (json!({"agreement_id": agreement, "server_id": server, "kind": "p2p"}), "invalid"),
    ];
    for (body, code) in cases {
        let problem = pair.lab.refused("POST", "/admin-connections", Some(body.clone())).await;
        assert_eq!(problem.code, code, "{body}: {}", problem.detail);
    }
    // A stranger learns nothing of an offer.
    let stranger = control.organization("Stranger").await;
    let path = format!("/connections/{}", pair.offer(json!({})).await.id);
    assert_eq!(stranger.refused("GET", &path, None).await.code, "not_found");
    for act in ["accept", "decline", "terminate"] {
        let problem = stranger.refused("POST", &format!("{path}/{act}"), Some(json!({}))).await;
        assert_eq!(problem.code, "not_found", "{act}");
    }
    // It is used from an own server with a gateway.
    let bare = pair.hospital.server("bare").await;
    for (body, code) in [
        (json!({"server_id": bare.id}), "wrong_state"),
        (json!({"server_id": pair.lab_server.id}), "not_found"),
        (json!({}), "invalid"),
    ] {
        assert_eq!(pair.hospital.refused("POST", &format!("{path}/accept"), Some(body)).await.code, code);
    }
}

#[tokio::test]
async fn an_unanswered_offer_expires_and_a_time_box_ends_the_tunnel() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let end = control.clock.unix_secs() + 3600;
    let boxed = pair.offer(json!({"expires_at": end})).await;
    let unanswered = pair.offer(json!({})).await;
    let path = format!("/connections/{}", boxed.id);
    let _: Connection = pair.hospital.post(&format!("{path}/accept"), json!({})).await;
    let mut watch = pair.lab_gateway.watch(&control).await;
    assert_eq!(watch.policy().await.connections[0].expires_at, Some(end), "the gateway cuts it by itself");
    control.clock.advance(Duration::from_secs(3600));
    let problem = pair.hospital.refused("POST", &format!("{path}/pause"), Some(json!({}))).await;
    assert_eq!(problem.code, "wrong_state", "expiry does not wait for the reconciler");
    let shown = pair.lab.until(&boxed.id.to_string(), "expired and written down", |c| c.ended_at.is_some()).await;
    assert_eq!(shown.status, ConnectionStatus::Expired);
    watch.policy_until(|policy| policy.connections.is_empty()).await;
    drop(watch);
    control.clock.advance(Duration::from_secs(7 * 24 * 3600 - 3600));
    let hospital = pair.hospital.sign_in().await;
    let path = format!("/connections/{}/accept", unanswered.id);
    assert_eq!(hospital.refused("POST", &path, Some(json!({}))).await.code, "wrong_state");
    assert_eq!(hospital.connection(&unanswered.id.to_string()).await.status, ConnectionStatus::Expired);
}

#[tokio::test]
async fn an_offer_waits_for_the_gateway_of_the_owner() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let bare = pair.lab.server("bare").await;
    let body = json!({"agreement_id": pair.agreement, "server_id": bare.id});
    let offer: Connection = pair.lab.post("/admin-connections", body).await;
    assert_eq!(offer.status, ConnectionStatus::Provisioning);
    let path = format!("/connections/{}/accept", offer.id);
    assert_eq!(pair.hospital.refused("POST", &path, Some(json!({}))).await.code, "wrong_state");
    pair.lab.enroll(&bare, &Gateway::new(9)).await;
    assert_eq!(pair.hospital.connection(&offer.id.to_string()).await.status, ConnectionStatus::Offered);
    let accepted: Connection = pair.hospital.post(&path, json!({"auto_activate": false})).await;
    assert_eq!((accepted.status, accepted.auto_activate), (ConnectionStatus::Ready, false));
    // Sent again it changes nothing, and nobody takes another server, port or start for the one that is in place.
    let again = json!({"server_id": pair.hospital_server.id, "auto_activate": false});
    assert_eq!(pair.hospital.post::<Connection>(&path, again).await.status, ConnectionStatus::Ready);
    let others = [json!({"server_id": pair.lab_server.id}), json!({"port": 9443}), json!({"auto_activate": true})];
    for other in others {
        assert_eq!(pair.hospital.refused("POST", &path, Some(other)).await.code, "conflict");
    }
}

#[tokio::test]
async fn the_end_of_what_they_stand_on_ends_admin_connections_and_shares() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let spare = pair.lab.server("spare").await;
    pair.lab.enroll(&spare, &Gateway::new(9)).await;
    let accept = async |offer: &Connection| {
        let path = format!("/connections/{}/accept", offer.id);
        let _: Connection = pair.hospital.post(&path, json!({})).await;
    };
    let (one, open) = (pair.offer(json!({})).await, pair.offer(json!({})).await);
    accept(&one).await;
    let body = json!({"agreement_id": pair.agreement, "server_id": spare.id, "level": "viewer"});
    let share: ServerShare = pair.lab.post("/server-shares", body).await;
    assert_eq!(pair.lab.send("DELETE", &format!("/servers/{}", spare.id), None).await.status(), 204);
    let tunnel = pair.hospital.connection(&share.connections[0].to_string()).await;
    assert_eq!(tunnel.status, ConnectionStatus::Terminated);
    assert!(pair.hospital.list::<ServerShare>("/server-shares").await.is_empty());

    let mut watch = pair.lab_gateway.watch(&control).await;
    watch.policy().await;
    let _: Value = pair.hospital.post(&format!("/agreements/{}/suspend", pair.agreement), json!({})).await;
    watch.policy_until(|policy| policy.connections[0].activation == Activation::Suspended).await;
    let _: Value = pair.hospital.post(&format!("/agreements/{}/end", pair.agreement), json!({})).await;
    watch.policy_until(|policy| policy.connections.is_empty()).await;
    for connection in [one, open] {
        assert_eq!(pair.lab.connection(&connection.id.to_string()).await.status, ConnectionStatus::Terminated);
    }
}

#[tokio::test]
async fn inside_a_self_agreement_an_offer_is_accepted_at_once() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let (a, b) = (hospital.server("a").await, hospital.server("b").await);
    hospital.enroll(&a, &Gateway::new(1)).await;
    hospital.enroll(&b, &Gateway::new(2)).await;
    let request: Value = hospital.post("/peering-requests", json!({"organization_id": hospital.id})).await;
    let body = json!({"agreement_id": request["agreement_id"], "server_id": a.id, "user_server_id": b.id});
    let own: Connection = hospital.post("/admin-connections", body).await;
    assert_eq!((own.status, own.sender.server_id), (ConnectionStatus::Ready, Some(b.id)));
}

#[tokio::test]
async fn a_shared_server_is_open_at_once_as_far_as_its_level_goes() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let share = async |level: &str| {
        let body = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": level});
        pair.lab.post::<ServerShare>("/server-shares", body).await
    };
    let metrics = share("metrics").await;
    assert_eq!((metrics.level, metrics.connections.len()), (ShareLevel::Metrics, 0));
    let received: Vec<ServerShare> = pair.hospital.list("/server-shares").await;
    assert_eq!((received[0].direction.as_str(), received[0].server_name.as_str()), ("received", "lis"));
    assert!(received[0].metrics.is_none(), "figures are for who asks for one");
    let one: ServerShare = pair.hospital.get(&format!("/server-shares/{}", metrics.id)).await;
    assert!(!one.metrics.unwrap().online);
    let open = format!("/server-shares/{}/open", metrics.id);
    assert_eq!(pair.hospital.refused("POST", &open, Some(json!({}))).await.code, "wrong_state", "no tunnel");
    let twice = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": "viewer"});
    assert_eq!(pair.lab.refused("POST", "/server-shares", Some(twice)).await.code, "conflict");
    let _: ServerShare = pair.lab.post(&format!("/server-shares/{}/end", metrics.id), json!({})).await;

    // The hospital has one server: the tunnel comes with the share.
    let viewer = share("viewer").await;
    let tunnel = pair.hospital.connection(&viewer.connections[0].to_string()).await;
    assert_eq!((tunnel.kind, tunnel.status), (ConnectionKind::AdminReadOnly, ConnectionStatus::Ready));
    assert_eq!(tunnel.admin.unwrap().share_id, Some(viewer.id));
    let open = format!("/server-shares/{}/open", viewer.id);
    let again: Connection = pair.hospital.post(&open, json!({})).await;
    assert_eq!(again.id, tunnel.id, "one tunnel from each server");
    assert_eq!(pair.lab.refused("POST", &open, Some(json!({}))).await.code, "wrong_state");
    let other = pair.hospital.server("other").await;
    pair.hospital.enroll(&other, &Gateway::new(9)).await;
    let second: Connection = pair.hospital.post(&open, json!({"server_id": other.id, "port": 9443})).await;
    assert_ne!(second.id, tunnel.id);
    let stranger = control.organization("Stranger").await;
    for (method, path) in [("GET", format!("/server-shares/{}", viewer.id)), ("POST", open.clone())] {
        assert_eq!(stranger.refused(method, &path, Some(json!({}))).await.code, "not_found");
    }
    // The receiver gives it back: both tunnels end.
    let ended: ServerShare = pair.hospital.post(&format!("/server-shares/{}/end", viewer.id), json!({})).await;
    assert!(ended.ended_at.is_some() && ended.metrics.is_none() && ended.connections.is_empty());
    for id in [tunnel.id, second.id] {
        assert_eq!(pair.lab.connection(&id.to_string()).await.status, ConnectionStatus::Terminated);
    }
    assert_eq!(pair.hospital.refused("POST", &open, Some(json!({"server_id": other.id}))).await.code, "wrong_state");
}

#[tokio::test]
async fn the_tunnel_of_a_share_with_an_end_expires_and_stays_expired() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let end = control.clock.unix_secs() + 3600;
    let body = json!({
        "agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": "viewer", "expires_at": end,
    });
    let share: ServerShare = pair.lab.post("/server-shares", body).await;
    let id = share.connections[0].to_string();
    control.clock.advance(Duration::from_secs(3600));
    assert_eq!(pair.hospital.connection(&id).await.status, ConnectionStatus::Expired);
    let written = pair.lab.until(&id, "written down", |c| c.ended_at.is_some()).await;
    assert_eq!(written.status, ConnectionStatus::Expired, "time ended it, and nobody");
    assert!(pair.lab.list::<Value>("/audit?act=connection.terminate").await.is_empty());
    assert_eq!(pair.lab.list::<Value>("/audit?act=share.expire").await.len(), 1);
}

#[tokio::test]
async fn a_person_who_names_himself_is_in_the_policy_of_the_owner_until_his_time_is_over() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let operator = pair.hospital.user("operator").await;
    let offer = pair.offer(json!({"scope": {"named_people": true}})).await;
    let path = format!("/connections/{}", offer.id);
    let (enter, maria) = (format!("{path}/enter"), json!({"account": "maria"}));
    assert_eq!(operator.refused("POST", &enter, Some(maria.clone())).await.code, "wrong_state", "not accepted yet");
    let _: Connection = pair.hospital.post(&format!("{path}/accept"), json!({})).await;
    for body in [
        json!({}),
        json!({"account": "maria", "address": "192.0.2.1"}),
        json!({"account": "a b"}),
        json!({"account": ""}),
        json!({"address": "here"}),
        json!({"account": "maria", "valid_secs": 86_401}),
    ] {
        assert_eq!(operator.refused("POST", &enter, Some(body.clone())).await.code, "invalid", "{body}");
    }
    assert_eq!(pair.lab.refused("POST", &enter, Some(maria.clone())).await.code, "wrong_state", "not the owner's side");
    let (mut lab, mut hospital) = (pair.lab_gateway.watch(&control).await, pair.hospital_gateway.watch(&control).await);
    let shown: Connection = operator.post(&enter, maria.clone()).await;
    let people = |shown: &Connection| shown.admin.as_ref().unwrap().people.clone();
    assert_eq!(people(&shown).len(), 1);
    let policy = lab.policy_until(|policy| policy.connections.iter().any(|entry| !entry.people.is_empty())).await;
    let entry = &policy.connections[0];
    assert!(entry.admin.named_people);
    let acting = ActingUser::new("maria", KnownBy::LocalAccount);
    let now = control.clock.unix_secs();
    assert_eq!(entry.person(&acting, now), Some(operator.session.user.email.as_str()));
    assert_eq!(entry.person(&acting, now + 8 * 3600), None);
    assert_eq!(entry.person(&ActingUser::new("maria", KnownBy::Address), now), None);
    assert!(hospital.policy().await.connections[0].people.is_empty(), "it is the owner's gateway that needs it");

    // An account has one person, a person may have several, and the mapped form of an address is the address.
    let mapped = json!({"address": "::ffff:192.0.2.7", "valid_secs": 60});
    let shown: Connection = operator.post(&enter, mapped).await;
    assert_eq!(people(&shown)[1].acting, ActingUser::new("192.0.2.7", KnownBy::Address));
    let shown: Connection = pair.hospital.post(&enter, maria.clone()).await;
    let owner = pair.hospital.session.user.email.clone();
    let names: Vec<_> = people(&shown).into_iter().map(|entry| entry.person).collect();
    assert_eq!(names, [operator.session.user.email.clone(), owner]);
    control.clock.advance(Duration::from_secs(60));
    assert_eq!(people(&pair.lab.connection(&offer.id.to_string()).await).len(), 1, "a minute is over");
    let left: Connection = pair.hospital.post(&format!("{path}/leave"), json!({})).await;
    assert!(people(&left).is_empty());
    let _: Connection = operator.post(&enter, maria).await;
    let gone = format!("/users/{}", operator.session.user.id);
    assert_eq!(pair.hospital.send("DELETE", &gone, None).await.status(), 204);
    lab.policy_until(|policy| policy.connections[0].people.is_empty()).await;
    assert_eq!(pair.lab.list::<Value>("/audit?act=admin.enter").await.len(), 4);
}
