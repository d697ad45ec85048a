//! Many at once, and one who says too much: nobody is held up by others.

use std::time::Duration;

use gateway_net::ws::{StatusCode, WsError};
use gateway_proto::{
    api::{
        gateway::{Report, WatchRequest},
        platform::{AuditEntry, Connection, Server},
    },
    id::RelayId,
    identity::GatewayKey,
    policy::Policy,
};
use serde_json::{Value, json};

use super::harness::{Control, Gateway, Org, open_watch};

fn empty(policy: &Policy) -> bool {
    policy.connections.is_empty()
}

/// An enrolled gateway of its own server.
async fn enrolled(organization: &Org<'_>, name: &str) -> Gateway {
    let gateway = Gateway::of(GatewayKey::from_seed(&gateway_net::random()));
    let server = organization.server(name).await;
    organization.enroll(&server, &gateway).await;
    gateway
}

#[tokio::test]
async fn gateways_that_come_at_once_all_get_in_but_for_the_one_whose_proof_was_used() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let mut gateways = Vec::new();
    for n in 0..30 {
        gateways.push(enrolled(&hospital, &format!("server {n}")).await);
    }
    let used = gateways[0].assertion(&control).sign(&gateways[0].key).unwrap();
    drop(gateways[0].watch_with(&control, &used).await.greeted().await);
    let comes = gateways[1..].iter().map(async |gateway| {
        let mut watch = gateway.watch(&control).await;
        let revision = watch.policy().await.revision;
        watch.stays_at(revision).await;
    });
    let replayed = async {
        let refused = open_watch(&control, &used).await;
        assert!(matches!(refused, Err(WsError::Status { status: StatusCode::UNAUTHORIZED, .. })));
    };
    tokio::join!(futures_util::future::join_all(comes), replayed);
    let servers: Vec<Server> = hospital.list("/servers?limit=200").await;
    assert!(servers[1..].iter().all(|server| server.applied_revision == server.policy_revision), "{servers:?}");
}

#[tokio::test]
async fn a_gateway_that_opens_watch_after_watch_is_told_to_wait_and_others_are_not() {
    let control = Control::start().await;
    let pair = control.pair().await;
    // At once: one after the other they would get new leave meanwhile, on a slow machine for all of them.
    let opens = (0..30).map(async |_| {
        let token = pair.hospital_gateway.assertion(&control).sign(&pair.hospital_gateway.key).unwrap();
        match open_watch(&control, &token).await {
            Ok(_) => 0,
            Err(WsError::Status { status, .. }) => {
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                1
            }
            Err(error) => panic!("{error}"),
        }
    });
    let refused: u32 = futures_util::future::join_all(opens).await.into_iter().sum();
    assert!(refused >= 5, "{refused} of 30 watches were refused");
    pair.lab_gateway.watch(&control).await.policy().await;
}

#[tokio::test]
async fn a_gateway_that_refuses_again_and_again_neither_fills_the_log_nor_misses_a_revocation() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut noisy, mut other) = pair.watches().await;
    noisy.policy().await;
    other.policy().await;
    for n in 0..95 {
        let reason = format!("reason {n}");
        noisy.send(&WatchRequest::Rejected { revision: 0, reason, in_force: false }).await;
    }
    let _: Value = pair.lab.post(&format!("/connections/{id}/terminate"), json!({})).await;
    noisy.policy_until(empty).await;
    other.policy_until(empty).await;
    // It goes on being heard.
    let revision = noisy.store.revision();
    noisy.send(&WatchRequest::Report(Report::default())).await;
    noisy.stays_at(revision).await;
    // What a gateway tells is written beside what is sent to it.
    let entries = async || pair.hospital.list::<AuditEntry>("/audit?act=policy.rejected&limit=200").await.len();
    let written = async {
        while entries().await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("nothing is written down");
    assert!((1..=70).contains(&entries().await), "{} entries", entries().await);
}

#[tokio::test]
async fn the_end_of_a_large_agreement_reaches_every_gateway_although_it_is_compiled_piece_by_piece() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let channel = pair.lab.channel(&pair.lab_server, "Results").await;
    let mut gateways = Vec::new();
    for n in 0..55 {
        let server = pair.hospital.server(&format!("server {n}")).await;
        if n % 10 == 0 {
            let gateway = Gateway::of(GatewayKey::from_seed(&gateway_net::random()));
            pair.hospital.enroll(&server, &gateway).await;
            gateways.push(gateway);
        }
        let offer = json!({"agreement_id": pair.agreement, "channel_id": channel.id});
        let grant: Value = pair.lab.post("/grants", offer).await;
        let path = format!("/grants/{}/approve", grant["id"].as_str().unwrap());
        let _: Value = pair.hospital.post(&path, json!({"sender_server_id": server.id})).await;
    }
    let mut watches = vec![pair.hospital_gateway.watch(&control).await, pair.lab_gateway.watch(&control).await];
    for gateway in &gateways {
        watches.push(gateway.watch(&control).await);
    }
    for watch in &mut watches {
        watch.policy_until(|policy| !empty(policy)).await;
    }
    let _: Value = pair.lab.post(&format!("/agreements/{}/end", pair.agreement), json!({})).await;
    for watch in &mut watches {
        watch.policy_until(empty).await;
    }
    let both = |connection: &Connection| connection.policy_in_force_since.is_some();
    pair.lab.until(&id, "ended at both ends", both).await;
}

#[tokio::test]
async fn when_a_home_relay_moves_the_neighbours_hear_of_it_and_nobody_else() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    let clinic = control.organization("Clinic").await;
    let stranger = enrolled(&clinic, "ehr").await;
    let relay =
        json!({"id": RelayId::new(1, [7; 10]), "name": "one", "url": "wss://relay.example:443/relay", "stun": []});
    let request =
        control.request("POST", "/api/v1/relays").header("Authorization", format!("Operator {}", control.operator));
    let relay: Value = request.json(&relay).send().await.unwrap().json().await.unwrap();
    let home = relay["id"].as_str().unwrap().parse().unwrap();
    let mut mover = pair.hospital_gateway.watch(&control).await;
    let mut neighbour = pair.lab_gateway.watch(&control).await;
    let mut stranger = stranger.watch(&control).await;
    mover.policy_until(|policy| !policy.relays.is_empty()).await;
    neighbour.policy_until(|policy| !policy.relays.is_empty()).await;
    let untouched = stranger.policy_until(|policy| !policy.relays.is_empty()).await.revision;
    mover.send(&WatchRequest::Report(Report { home_relay: Some(home), ..Report::default() })).await;
    neighbour.policy_until(|policy| policy.peers.iter().any(|peer| peer.home_relay == Some(home))).await;
    stranger.stays_at(untouched).await;
}

#[tokio::test]
async fn offers_that_nobody_answers_have_an_end() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let offer = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id});
    for _ in 0..20 {
        let _: Connection = pair.lab.post("/admin-connections", offer.clone()).await;
    }
    let refused = pair.lab.refused("POST", "/admin-connections", Some(offer.clone())).await;
    assert_eq!(refused.code, "conflict");
    let waiting: Vec<Connection> = pair.hospital.list("/connections?status=offered").await;
    assert_eq!(waiting.len(), 20);
    let _: Value = pair.hospital.post(&format!("/connections/{}/decline", waiting[0].id), json!({})).await;
    let _: Connection = pair.lab.post("/admin-connections", offer).await;
}

#[tokio::test]
async fn nobody_pauses_and_resumes_for_ever() {
    let control = Control::start_with("[limits]\nrequests_per_second = 100000").await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    // Once active it stays so without the gateways, who are not heard of again here.
    let (mut one, mut two) = pair.watches().await;
    one.policy().await;
    two.policy().await;
    pair.lab.until(&id, "active", |connection| connection.status.as_str() == "active").await;
    drop((one, two));
    let mut limited = None;
    for n in 0..2_000 {
        let act = if n % 2 == 0 { "pause" } else { "resume" };
        let answer = pair.lab.send("POST", &format!("/connections/{id}/{act}"), Some(json!({}))).await;
        if answer.status() == 429 {
            assert!(answer.headers().contains_key("retry-after"));
            limited = Some(n);
            break;
        }
        assert!(answer.status().is_success(), "{n}: {:?}", answer.text().await);
    }
    assert!(limited.is_some_and(|n| n >= 300), "{limited:?}");
    // Ending it is never refused.
    let ended: Connection = pair.lab.post(&format!("/connections/{id}/terminate"), json!({})).await;
    assert_eq!(ended.status.as_str(), "terminated");
}

/// Does the two acts in turn until the first is refused, and how many were done; the second, which takes away, never is.
async fn until_refused(org: &Org<'_>, act: impl AsyncFn() -> reqwest::Response, undo: impl AsyncFn()) -> u32 {
    for done in 0..2_000 {
        let answer = act().await;
        if answer.status() == 429 {
            assert!(answer.headers().contains_key("retry-after"), "{}", org.id);
            return 2 * done;
        }
        assert!(answer.status().is_success(), "{done}: {:?}", answer.text().await);
        undo().await;
    }
    panic!("nothing was refused");
}

#[tokio::test]
async fn nobody_fills_the_log_of_a_partner_with_people_who_enter_and_leave() {
    let control = Control::start_with("[limits]\nrequests_per_second = 100000").await;
    let pair = control.pair().await;
    let offer = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id});
    let offered: Connection = pair.lab.post("/admin-connections", offer).await;
    let path = format!("/connections/{}", offered.id);
    let _: Connection = pair.hospital.post(&format!("{path}/accept"), json!({})).await;
    let enter = async || pair.hospital.send("POST", &format!("{path}/enter"), Some(json!({"account": "maria"}))).await;
    let leave = async || {
        let answer = pair.hospital.send("POST", &format!("{path}/leave"), Some(json!({}))).await;
        assert_eq!(answer.status(), 200, "leaving is never refused");
    };
    let done = until_refused(&pair.hospital, enter, leave).await;
    assert!((298..600).contains(&done), "{done}");
}

#[tokio::test]
async fn nobody_fills_the_log_of_a_partner_with_links_to_its_devices() {
    let control = Control::start_with("[limits]\nrequests_per_second = 100000").await;
    let (lab, partner) = (control.organization("Lab").await, control.organization("Partner").await);
    partner.agree_with(&lab).await;
    let device = |name: &str| json!({"kind": "application", "name": name, "linkable_by": "partners"});
    let target: Value = lab.post("/devices", device("theirs")).await;
    let source: Value = partner.post("/devices", device("ours")).await;
    let own: Value = partner.post("/devices", device("ours, too")).await;
    let between = |target: &Value| json!({"source_device_id": source["id"], "target_device_id": target["id"]});
    let link = async || partner.send("POST", "/links", Some(between(&target))).await;
    let unlink = async || {
        let links: Vec<Value> = partner.list("/links").await;
        let answer = partner.send("DELETE", &format!("/links/{}", links[0]["id"].as_str().unwrap()), None).await;
        assert_eq!(answer.status(), 204, "taking one away is never refused");
    };
    let done = until_refused(&partner, link, unlink).await;
    assert!((298..600).contains(&done), "{done}");
    // What it does with its own devices is its own affair, and so is what others do.
    let _: Value = partner.post("/links", between(&own)).await;
    let other = control.organization("Other").await;
    other.agree_with(&lab).await;
    let source: Value = other.post("/devices", device("others'")).await;
    let body = json!({"source_device_id": source["id"], "target_device_id": target["id"]});
    let _: Value = other.post("/links", body).await;
}
