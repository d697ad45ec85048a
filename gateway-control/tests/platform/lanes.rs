//! The lanes at the database seen from outside: what waits there, for whom, and what goes on meanwhile.

use std::time::Duration;

use gateway_control::storage::Storage;
use gateway_proto::{
    api::{
        engine::ServerEngine,
        gateway::{EngineHead, EngineReport, Report, WatchRequest},
        platform::{CreatedDeviceToken, Device, Introspection, Server},
    },
    device_token::KeyProof,
    engine::EngineState,
    jws::JwsKey,
};
use serde_json::json;

use super::{
    database,
    harness::{Control, Gateway, Org, Watch},
    neighbours::until,
};

const LIMIT: Duration = Duration::from_secs(20);
const WITH_METRICS: &str = "metrics_listen = '127.0.0.1:0'\n";

/// A server whose gateway watches, and has confirmed its policy.
async fn watched(org: &Org<'_>, n: u8) -> (Server, Watch, u64) {
    let (server, gateway) = (org.server(&format!("server {n}")).await, Gateway::new(n));
    org.enroll(&server, &gateway).await;
    let mut watch = gateway.watch(org.control).await;
    let revision = watch.policy().await.revision;
    shown(org, &server, |server| server.applied_revision == revision).await;
    (server, watch, revision)
}

/// Waits until a server is shown as told.
async fn shown(org: &Org<'_>, server: &Server, is: impl Fn(&Server) -> bool) {
    let path = format!("/servers/{}", server.id);
    let wait = async {
        while !is(&org.get::<Server>(&path).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the server was never shown as told");
}

fn engine_is_up() -> WatchRequest {
    let (version, problem) = (Some("4.5.2".to_owned()), None);
    let (senders, advice) = (Vec::new(), Vec::new());
    let head = EngineHead { state: EngineState::Up, version, problem, left_out: 0, senders, advice };
    let engine = EngineReport { head, complete: true, more: false, channels: Vec::new(), gone: Vec::new() };
    WatchRequest::Report(Report { engine: Some(engine), ..Report::default() })
}

#[tokio::test]
async fn gateways_that_wait_for_each_other_to_tell_something_keep_their_watches_and_are_told_meanwhile() {
    let control = Control::start_with(WITH_METRICS).await;
    let lab = control.organization("Lab").await;
    let mut gateways = [watched(&lab, 1).await, watched(&lab, 2).await, watched(&lab, 3).await];
    let storage = database::open(control.directory.path()).await;
    let held = storage.begin().await.unwrap();
    for (_, watch, _) in &mut gateways {
        watch.send(&engine_is_up()).await;
    }
    until(&control, "gateway_control_tells_waiting 2").await;
    // The second heartbeat comes after more time than a request would wait for its turn.
    for _ in 0..2 {
        for (_, watch, revision) in &mut gateways {
            watch.stays_at(*revision).await;
            watch.send(&WatchRequest::Heartbeat).await;
        }
    }
    held.commit().await.unwrap();
    for (server, _, _) in &gateways {
        let path = format!("/servers/{}/engine", server.id);
        let told = async {
            while lab.get::<ServerEngine>(&path).await.head.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, told).await.expect("what a gateway told was lost");
    }
    for (_, watch, revision) in &mut gateways {
        watch.stays_at(*revision).await;
    }
}

#[tokio::test]
async fn what_a_gateway_told_before_its_watch_ended_is_written_when_its_turn_comes() {
    let control = Control::start_with(WITH_METRICS).await;
    let lab = control.organization("Lab").await;
    let (server, mut watch, revision) = watched(&lab, 1).await;
    let (id, token) = (server.id, lab.token.clone());
    let storage = database::open(control.directory.path()).await;
    let held = storage.begin().await.unwrap();
    let reason = "cannot read it".to_owned();
    watch.send(&WatchRequest::Rejected { revision, reason, in_force: false }).await;
    until(&control, "gateway_control_tells_at_work 1").await;
    let release = async {
        while watch.event().await.is_some() {}
        held.commit().await.unwrap();
    };
    let (directory, ()) = tokio::join!(control.stop(), release);
    let control = Control::start_in(directory, "").await;
    let answer = control.request("GET", &format!("/api/v1/servers/{id}")).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.json::<Server>().await.unwrap().policy_problem.as_deref(), Some("cannot read it"));
}

#[tokio::test]
async fn a_proof_that_a_person_shows_waits_for_the_changes_of_people_and_holds_up_no_gateway() {
    let control = Control::start_with(WITH_METRICS).await;
    let hospital = control.organization("Hospital").await;
    let device: Device = hospital.post("/devices", json!({"kind": "application", "name": "portal"})).await;
    let key = JwsKey::from_seed(&[5; 32]);
    let body = json!({"key": key.public().x()});
    let made: CreatedDeviceToken = hospital.post(&format!("/devices/{}/tokens", device.id), body).await;
    let (text, url) = (made.token.0.as_str(), "https://gateway.example/behaviors");
    let proof = KeyProof::new("one".to_owned(), "POST", url, text, control.clock.unix_secs()).sign(&key).unwrap();
    let body = json!({"token": text, "proof": {"proof": proof, "method": "POST", "url": url}});
    let storage = database::open(control.directory.path()).await;
    let held = storage.begin().await.unwrap();
    let ask = hospital.post::<Introspection>("/device-tokens/introspect", body);
    let release = async {
        until(&control, "gateway_control_writes_at_work 1").await;
        until(&control, "gateway_control_tells_at_work 0").await;
        held.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(ask, release);
    assert!(answer.active, "{answer:?}");
}
