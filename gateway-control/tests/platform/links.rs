//! Links between devices, what their ends mean, and metering.

use std::{collections::BTreeSet, time::Duration};

use data_encoding::HEXLOWER;
use gateway_proto::{
    api::{
        gateway::INTROSPECT_PATH,
        platform::{
            CreatedDeviceToken, Device, Executions, Grant, Introspection, Link, LinkableDevice, PeeringRequest,
        },
    },
    balance::EndCounts,
    signed::Assertion,
};
use serde_json::{Value, json};

use super::{
    harness::{Control, Gateway, Org},
    reports::{counted, told},
};

async fn device(org: &Org<'_>, name: &str, linkable_by: &str) -> Device {
    let body = json!({
        "kind": "fhir_endpoint", "name": name, "behaviors": ["fhir-query"], "linkable_by": linkable_by,
    });
    org.post("/devices", body).await
}

fn between(source: &Device, target: &Device) -> Value {
    json!({"source_device_id": source.id, "target_device_id": target.id})
}

async fn acts(org: &Org<'_>) -> Vec<(String, String)> {
    let audit: Vec<Value> = org.list("/audit").await;
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    audit.iter().map(|entry| (text(entry, "act"), text(entry, "object"))).collect()
}

#[tokio::test]
async fn a_link_is_made_where_the_target_allows_it_and_goes_with_either_device() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let stranger = control.organization("Stranger").await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    let (source, other) = (device(hospital, "portal", "organization").await, device(hospital, "app", "tenant").await);
    let (closed, open) = (device(lab, "closed", "tenant").await, device(lab, "open", "partners").await);
    // What may not be linked to is not there; what may be is listed.
    assert_eq!(hospital.refused("POST", "/links", Some(between(&source, &closed))).await.code, "not_found");
    assert_eq!(stranger.refused("POST", "/links", Some(between(&open, &open))).await.code, "not_found");
    let own: Device = stranger.list::<Device>("/devices").await.remove(0);
    assert_eq!(stranger.refused("POST", "/links", Some(between(&own, &open))).await.code, "not_found");
    assert_eq!(hospital.refused("POST", "/links", Some(between(&open, &source))).await.code, "not_found");
    assert_eq!(hospital.refused("POST", "/links", Some(between(&source, &source))).await.code, "invalid");
    let targets: Vec<LinkableDevice> = hospital.list("/linkable-devices").await;
    assert_eq!(targets.iter().map(|device| device.id).collect::<Vec<_>>(), [open.id]);
    assert_eq!(targets[0].organization_name.as_deref(), Some("Lab"));
    assert!(stranger.list::<LinkableDevice>("/linkable-devices").await.is_empty());
    let link: Link = hospital.post("/links", between(&source, &open)).await;
    assert_eq!((link.source_name.as_str(), link.behaviors.as_slice()), ("portal", &["fhir-query".to_owned()][..]));
    assert_eq!(hospital.refused("POST", "/links", Some(between(&source, &open))).await.code, "conflict");
    let inner: Link = hospital.post("/links", between(&other, &source)).await;
    assert_eq!(lab.list::<Link>("/links").await, std::slice::from_ref(&link));
    let path = format!("/links/{}", link.id);
    for method in ["GET", "DELETE"] {
        assert_eq!(stranger.refused(method, &path, None).await.code, "not_found");
        assert_eq!(lab.refused(method, &format!("/links/{}", inner.id), None).await.code, "not_found");
    }
    // The target's owner closes it: the link goes, and both sides find that in their logs.
    let closing = json!({"linkable_by": "tenant"});
    assert_eq!(lab.send("PATCH", &format!("/devices/{}", open.id), Some(closing)).await.status(), 200);
    assert_eq!(hospital.refused("GET", &path, None).await.code, "not_found");
    for org in [hospital, lab] {
        assert!(acts(org).await.contains(&("link.delete".to_owned(), link.id.to_string())));
    }
    let opening = json!({"linkable_by": "partners"});
    assert_eq!(lab.send("PATCH", &format!("/devices/{}", open.id), Some(opening)).await.status(), 200);
    let link: Link = hospital.post("/links", between(&source, &open)).await;
    // Suspended: what is there stays, nothing new comes. Ended: it goes.
    let _: Value = lab.post(&format!("/agreements/{}/suspend", pair.agreement), json!({})).await;
    assert_eq!(hospital.list::<Link>("/links").await.len(), 2);
    assert_eq!(hospital.refused("POST", "/links", Some(between(&other, &open))).await.code, "not_found");
    let _: Value = lab.post(&format!("/agreements/{}/end", pair.agreement), json!({})).await;
    assert!(acts(hospital).await.contains(&("link.delete".to_owned(), link.id.to_string())));
    assert_eq!(hospital.list::<Link>("/links").await, std::slice::from_ref(&inner));
    // With a device its links go.
    assert_eq!(hospital.send("DELETE", &format!("/devices/{}", source.id), None).await.status(), 204);
    assert!(hospital.list::<Link>("/links").await.is_empty());
    assert!(acts(hospital).await.contains(&("link.delete".to_owned(), inner.id.to_string())));
}

#[tokio::test]
async fn either_side_removes_a_link_and_the_platform_takes_its_devices_away_with_theirs() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    let (source, target) = (device(hospital, "portal", "organization").await, device(lab, "open", "partners").await);
    let link: Link = hospital.post("/links", between(&source, &target)).await;
    let path = format!("/links/{}", link.id);
    let seen = lab.send("GET", &path, None).await;
    let tag = seen.headers()["etag"].clone();
    let delete = async |tag: &str| {
        let request = control.request("DELETE", &format!("/api/v1{path}")).bearer_auth(&lab.token);
        request.header("if-match", tag).send().await.unwrap().status().as_u16()
    };
    assert_eq!(delete("\"another\"").await, 412);
    assert_eq!(delete(tag.to_str().unwrap()).await, 204);
    let body = json!({"kind": "document_gateway", "name": "Network", "behaviors": ["ihe-document-query"]});
    let operator = format!("Operator {}", control.operator);
    let request = control.request("POST", "/api/v1/system-devices").header("authorization", &operator).json(&body);
    let system: Device = request.send().await.unwrap().json().await.unwrap();
    for org in [hospital, lab] {
        let own = device(org, "another", "organization").await;
        let _: Link = org.post("/links", between(&own, &system)).await;
        assert_eq!(org.list::<Link>("/links").await.len(), 1);
    }
    let path = format!("/api/v1/system-devices/{}", system.id);
    let answer = control.request("DELETE", &path).header("authorization", &operator).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    for org in [hospital, lab] {
        assert!(org.list::<Link>("/links").await.is_empty());
    }
}

#[tokio::test]
async fn the_gateway_of_a_linked_device_may_ask_about_the_tokens_of_the_other() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let source = device(&pair.hospital, "portal", "organization").await;
    let made: CreatedDeviceToken = pair.hospital.post(&format!("/devices/{}/tokens", source.id), json!({})).await;
    let ask = async |gateway: &Gateway| {
        let assertion = Assertion {
            method: "POST".to_owned(),
            path: INTROSPECT_PATH.to_owned(),
            nonce: HEXLOWER.encode(&gateway_net::random::<16>()),
            ..gateway.assertion(&control)
        };
        let text = assertion.sign(&gateway.key).unwrap();
        let request = control.request("POST", INTROSPECT_PATH).header("authorization", format!("Gateway {text}"));
        let answer = request.json(&json!({"token": made.token.0})).send().await.unwrap();
        answer.json::<Introspection>().await.unwrap()
    };
    assert!(!ask(&pair.lab_gateway).await.active);
    let body = json!({
        "kind": "fhir_endpoint", "name": "fhir", "behaviors": ["fhir-query"], "linkable_by": "partners",
        "server_id": pair.lab_server.id,
    });
    let target: Device = pair.lab.post("/devices", body).await;
    let link: Link = pair.hospital.post("/links", between(&source, &target)).await;
    for gateway in [&pair.lab_gateway, &pair.hospital_gateway] {
        let answer = ask(gateway).await;
        assert!(answer.active, "{answer:?}");
        assert_eq!((answer.linked.len(), answer.linked[0].id), (1, target.id));
        assert_eq!(answer.linked[0].server_id, Some(pair.lab_server.id));
    }
    // With whom else the device is linked is for its own organization, and nobody's who does not count now.
    let clinic = control.organization("Clinic").await;
    pair.hospital.agree_with(&clinic).await;
    let third = device(&clinic, "third", "partners").await;
    let _: Link = pair.hospital.post("/links", between(&source, &third)).await;
    let linked = |answer: Introspection| answer.linked.iter().map(|device| device.id).collect::<BTreeSet<_>>();
    assert_eq!(linked(ask(&pair.hospital_gateway).await), BTreeSet::from([target.id, third.id]));
    assert_eq!(linked(ask(&pair.lab_gateway).await), BTreeSet::from([target.id]));
    let _: Value = pair.lab.post(&format!("/agreements/{}/suspend", pair.agreement), json!({})).await;
    assert_eq!(ask(&pair.lab_gateway).await.problem.as_deref(), Some("the token is not known here"));
    assert_eq!(linked(ask(&pair.hospital_gateway).await), BTreeSet::from([third.id]));
    let _: Value = pair.lab.post(&format!("/agreements/{}/resume", pair.agreement), json!({})).await;
    assert_eq!(linked(ask(&pair.lab_gateway).await), BTreeSet::from([target.id]));
    // The partner's people are not its gateways.
    let body = json!({"token": made.token.0});
    assert!(!pair.lab.post::<Introspection>("/device-tokens/introspect", body).await.active);
    assert_eq!(pair.lab.send("DELETE", &format!("/links/{}", link.id), None).await.status(), 204);
    assert!(!ask(&pair.lab_gateway).await.active);
}

#[tokio::test]
async fn messages_are_metered_once_for_each_side_by_device_behavior_and_day() {
    let control = Control::start_with("delivery_interval_secs = 2\n").await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy_until(|policy| !policy.connections.is_empty()).await;
    let report = |epoch: u64, messages: u64| {
        let counts = EndCounts { epoch, messages, accepted: messages, ..EndCounts::default() };
        told(vec![counted(&id, counts)])
    };
    // Midnight may be in the middle of this test: then there are two rows, of two days.
    let metered = async |number: u64| {
        let wait = async {
            loop {
                let executions: Vec<Executions> = pair.hospital.list("/executions").await;
                if executions.iter().map(|row| row.number).sum::<u64>() == number {
                    let keys =
                        executions.iter().map(|row| (row.device_id.to_string(), &row.behavior, row.day.to_string()));
                    assert_eq!(keys.collect::<BTreeSet<_>>().len(), executions.len(), "{executions:?}");
                    assert!(executions.iter().all(|row| row.behavior == "hl7v2-mllp" && row.device_name == "main"));
                    return executions;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never {number}"))
    };
    watch.send(&report(1, 3)).await;
    metered(3).await;
    // Cumulative, sent twice, and from zero after a restart of the gateway.
    watch.send(&report(1, 3)).await;
    watch.send(&report(1, 5)).await;
    metered(5).await;
    watch.send(&report(2, 2)).await;
    let executions = metered(7).await;
    assert!(pair.lab.list::<Executions>("/executions").await.is_empty(), "the lab's gateway told nothing");
    let device = executions[0].device_id;
    let filtered = async |query: &str| pair.hospital.list::<Executions>(&format!("/executions?{query}")).await.len();
    assert_eq!(filtered(&format!("device={device}&behavior=hl7v2-mllp")).await, executions.len());
    assert_eq!(filtered("behavior=dicom").await, 0);
    assert_eq!(filtered("from=2020-01-01&to=2020-12-31").await, 0);
    assert_eq!(pair.hospital.refused("GET", "/executions?from=yesterday", None).await.code, "invalid");
    let path = format!("/api/v1/organizations/{}/executions", pair.hospital.id);
    let request = control.request("GET", &path).header("authorization", format!("Operator {}", control.operator));
    let shown = request.send().await.unwrap().json::<Value>().await.unwrap();
    let numbers = shown["items"].as_array().unwrap().iter().map(|row| row["number"].as_u64().unwrap());
    assert_eq!(numbers.sum::<u64>(), 7, "{shown}");
    assert_eq!(pair.lab.refused("GET", &path.replace("/api/v1", ""), None).await.status, 401);
}

#[tokio::test]
async fn what_has_no_messages_is_metered_by_connections_and_a_server_with_itself_once() {
    let control = Control::start_with("delivery_interval_secs = 2\n").await;
    let hospital = control.organization("Hospital").await;
    let server = hospital.server("a").await;
    let gateway = Gateway::new(1);
    hospital.enroll(&server, &gateway).await;
    let request: PeeringRequest = hospital.post("/peering-requests", json!({"organization_id": hospital.id})).await;
    let channel = hospital.channel(&server, "Loop").await;
    let body = json!({"agreement_id": request.agreement_id, "channel_id": channel.id});
    let _: Grant = hospital.post("/grants", body).await;
    let mut watch = gateway.watch(&control).await;
    let policy = watch.policy_until(|policy| !policy.connections.is_empty()).await;
    let id = policy.connections[0].id.to_string();
    // Three messages, and two connections of the time when its observer was off.
    for counts in [
        EndCounts { epoch: 2, messages: 3, accepted: 3, ..EndCounts::default() },
        EndCounts { epoch: 1, streams: 2, uncompared: true, ..EndCounts::default() },
    ] {
        watch.send(&told(vec![counted(&id, counts)])).await;
    }
    let metered = async {
        loop {
            let executions: Vec<Executions> = hospital.list("/executions").await;
            if executions.iter().map(|row| row.number).sum::<u64>() == 5 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), metered).await.unwrap();
    let shown: Value = hospital.get(&format!("/connections/{id}")).await;
    assert!(shown["delivery"].is_null(), "one report for both ends: {shown}");
}
