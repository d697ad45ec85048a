//! Sender channels: the sending ends of connections, as their organization sees and names them.

use std::{collections::BTreeSet, time::Duration};

use gateway_proto::{
    api::{
        Page,
        gateway::{ConnectionReport, EndDetails, PathWhy},
        platform::{AuditEntry, Channel, ChannelDirection, Grant},
    },
    id::ChannelId,
};
use serde_json::{Value, json};

use super::{
    harness::{Control, Org, Pair, until},
    reports::{connected, told},
};

/// The lab's channel granted to the hospital, which asks its gateway for this port.
async fn connection(pair: &Pair<'_>, name: &str, port: u16) -> String {
    let channel = pair.lab.channel(&pair.lab_server, name).await;
    let offer = json!({"agreement_id": pair.agreement, "channel_id": channel.id});
    let grant: Grant = pair.lab.post("/grants", offer).await;
    let approval = json!({"sender_port": port});
    let grant: Grant = pair.hospital.post(&format!("/grants/{}/approve", grant.id), approval).await;
    grant.connection_id.unwrap().to_string()
}

/// The path of the sender that feeds a connection.
fn path(connection: &str) -> String {
    format!("/channels/{}", connection.replace("con_", "chn_"))
}

async fn rename(org: &Org<'_>, path: &str, name: &str) -> Channel {
    let answer = org.send("PATCH", path, Some(json!({"name": name}))).await;
    assert_eq!(answer.status(), 200, "{path}: {:?}", answer.text().await);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn senders_stand_beside_listeners_each_with_the_one_connection_it_feeds() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    let own = hospital.channel(&pair.hospital_server, "Results").await;
    assert_eq!((own.direction, &own.connection_id), (ChannelDirection::Listener, &None));
    let (orders, labels) = (connection(&pair, "Orders", 7001).await, connection(&pair, "Labels", 7002).await);

    // Whoever does not ask for them is an older program: it sees what it always saw.
    assert_eq!(hospital.list::<Channel>("/channels").await, std::slice::from_ref(&own));
    assert_eq!(hospital.list::<Channel>("/channels?direction=listener").await, std::slice::from_ref(&own));
    let senders: Vec<Channel> = hospital.list("/channels?direction=sender").await;
    let feeds: Vec<_> = senders.iter().map(|sender| sender.connection_id.unwrap().to_string()).collect();
    assert_eq!(feeds, [orders.clone(), labels.clone()]);
    let first = &senders[0];
    assert_eq!(
        (first.direction, first.local_port, first.server_id),
        (ChannelDirection::Sender, Some(7001), own.server_id)
    );
    assert_eq!((first.name.as_str(), first.feeds.as_deref()), ("Lab/Orders", Some("Lab/Orders")));
    assert_eq!((first.engine.as_str(), first.published, first.behavior.as_str()), ("", false, "hl7v2-mllp"));
    assert_eq!(hospital.get::<Channel>(&path(&orders)).await, *first);

    // Both directions in pages of one: everything once, in the order of the ids.
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Page<Channel> = hospital.get(&format!("/channels?direction=any&limit=1{cursor}")).await;
        found.extend(page.items.into_iter().map(|channel| channel.id));
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, [own.id, senders[0].id, senders[1].id]);

    let spare = hospital.server("spare").await;
    let here = format!("/channels?direction=sender&server={}", pair.hospital_server.id);
    for (query, number) in [
        (here.as_str(), 2),
        (format!("/channels?direction=sender&server={}", spare.id).as_str(), 0),
        ("/channels?direction=any&published=true", 1),
        ("/channels?direction=any&published=false", 2),
        ("/channels?direction=sender&search=LAB%2Flab", 1),
        ("/channels?direction=sender&search=%25", 0),
    ] {
        assert_eq!(hospital.list::<Channel>(query).await.len(), number, "{query}");
    }
    assert_eq!(hospital.refused("GET", "/channels?direction=both", None).await.code, "invalid");

    // Whom it delivers to knows a listener only.
    assert!(lab.list::<Channel>("/channels?direction=sender").await.is_empty());
    assert_eq!(lab.refused("GET", &path(&orders), None).await.code, "not_found");
    let body = Some(json!({"name": "mine"}));
    assert_eq!(lab.refused("PATCH", &path(&orders), body).await.code, "not_found");
}

#[tokio::test]
async fn a_sender_has_the_name_that_its_own_side_gives_it_as_long_as_its_connection_lasts() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let hospital = &pair.hospital;
    let (orders, labels) = (connection(&pair, "Orders", 7001).await, connection(&pair, "Labels", 7002).await);
    let named = rename(hospital, &path(&orders), "to the lab").await;
    assert_eq!((named.name.as_str(), named.feeds.as_deref()), ("to the lab", Some("Lab/Orders")));
    assert_eq!(hospital.get::<Channel>(&path(&orders)).await, named);
    assert_eq!(hospital.list::<Channel>("/channels?direction=sender&search=THE").await, std::slice::from_ref(&named));
    let log: Vec<AuditEntry> = hospital.list("/audit?act=channel.update").await;
    assert_eq!(log.len(), 1);
    assert_eq!(
        (log[0].object.as_str(), log[0].detail.as_str()),
        (named.id.to_string().as_str(), "name: Lab/Orders → to the lab")
    );
    assert!(pair.lab.list::<AuditEntry>("/audit?act=channel.update").await.is_empty());
    rename(hospital, &path(&orders), "to the lab").await;
    assert_eq!(hospital.list::<AuditEntry>("/audit?act=channel.update").await.len(), 1, "nothing was changed");

    // Two senders of a server are told apart, and the rest of one is not changed here.
    let refused = async |method: &str, body: Option<Value>| hospital.refused(method, &path(&labels), body).await.code;
    assert_eq!(refused("PATCH", Some(json!({"name": "TO THE LAB"}))).await, "conflict");
    for body in [json!({"engine": "127.0.0.1:1"}), json!({"published": true}), json!({"public_name": "x"})] {
        assert_eq!(refused("PATCH", Some(body)).await, "invalid");
    }
    for as_unnamed in ["LAB/Orders", "Lab／Orders"] {
        let body = Some(json!({"name": as_unnamed}));
        assert_eq!(refused("PATCH", body).await, "invalid", "one that nobody named may be called so: {as_unnamed}");
    }
    assert_eq!(refused("DELETE", None).await, "conflict");
    assert_eq!(hospital.refused("GET", &format!("{}/access", path(&labels)), None).await.code, "conflict");
    let viewer = hospital.user("viewer").await;
    let body = Some(json!({"name": "mine"}));
    assert_eq!(viewer.refused("PATCH", &path(&labels), body).await.code, "forbidden");

    // It goes with its connection, and leaves its name to others.
    let _: Value = hospital.post(&format!("/connections/{orders}/terminate"), json!({})).await;
    assert_eq!(hospital.refused("GET", &path(&orders), None).await.code, "not_found");
    assert_eq!(rename(hospital, &path(&labels), "to the lab").await.name, "to the lab");
    assert_eq!(hospital.list::<Channel>("/channels?direction=sender").await.len(), 1);
}

#[tokio::test]
async fn a_sender_whose_time_is_over_keeps_its_name_until_that_is_written_down_and_a_refusal_says_so() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let hospital = &pair.hospital;
    let labels = connection(&pair, "Labels", 7002).await;
    let channel = pair.lab.channel(&pair.lab_server, "Orders").await;
    let end = control.clock.unix_secs() + 60;
    let offer = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "expires_at": end});
    let grant: Grant = pair.lab.post("/grants", offer).await;
    let grant: Grant = hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    let orders = grant.connection_id.unwrap().to_string();
    rename(hospital, &path(&orders), "to the lab").await;
    // A clock that was set and did not run is not believed: nothing is written down.
    control.clock.set_ahead(Duration::from_secs(61));
    assert_eq!(hospital.refused("GET", &path(&orders), None).await.code, "not_found");
    let body = Some(json!({"name": "to the lab"}));
    let taken = hospital.refused("PATCH", &path(&labels), body).await;
    assert_eq!(taken.code, "conflict");
    assert!(taken.detail.contains("written down"), "{}", taken.detail);
    // What the reconciler does once it can believe the clock.
    let mut passed_over = BTreeSet::new();
    while control.service.expire_overdue(&mut passed_over).await.unwrap() {}
    assert_eq!(rename(hospital, &path(&labels), "to the lab").await.name, "to the lab");
}

#[tokio::test]
async fn the_port_that_a_gateway_picked_is_shown_to_its_own_side_only() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut hospital, _lab) = pair.watches().await;
    hospital.policy_until(|policy| !policy.connections.is_empty()).await;
    let sender: Channel = pair.hospital.get(&path(&id)).await;
    assert_eq!(sender.local_port, None, "nobody knows it yet");
    let details = EndDetails { local_port: Some(40_001), ..EndDetails::default() };
    hospital.send(&told(vec![ConnectionReport { details: Some(details), ..connected(&id) }])).await;
    let is_shown = async || pair.hospital.get::<Channel>(&path(&id)).await.local_port == Some(40_001);
    hospital.living(until("the port was never shown", is_shown)).await;
    let port = |connection: gateway_proto::api::platform::Connection| {
        connection.sender.report.unwrap().details.unwrap().local_port
    };
    assert_eq!(port(pair.hospital.connection(&id).await), Some(40_001));
    assert_eq!(port(pair.lab.connection(&id).await), None);
    let listed: Vec<Channel> = pair.hospital.list("/channels?direction=any").await;
    assert_eq!(
        listed.iter().map(|channel| (channel.id, channel.local_port)).collect::<Vec<_>>(),
        [(path(&id).rsplit('/').next().unwrap().parse::<ChannelId>().unwrap(), Some(40_001))]
    );
    // While it is paused the port is closed, and the engine's configuration names it all the same.
    let details = EndDetails { kept_port: Some(40_002), ..EndDetails::default() };
    hospital.send(&told(vec![ConnectionReport { details: Some(details), ..connected(&id) }])).await;
    let is_kept = async || pair.hospital.get::<Channel>(&path(&id)).await.local_port == Some(40_002);
    hospital.living(until("the port of a closed sender was never shown", is_kept)).await;
}

#[tokio::test]
async fn a_port_that_a_gateway_picked_for_one_connection_is_no_other_ones_also_while_it_is_closed() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut hospital, _lab) = pair.watches().await;
    hospital.policy_until(|policy| !policy.connections.is_empty()).await;
    let channel = pair.lab.channel(&pair.lab_server, "Labels").await;
    let offer = json!({"agreement_id": pair.agreement, "channel_id": channel.id});
    let grant: Grant = pair.lab.post("/grants", offer).await;
    let approve = format!("/grants/{}/approve", grant.id);
    for (port, details) in [
        // An older gateway: it says what is open.
        (40_001, EndDetails { local_port: Some(40_001), ..EndDetails::default() }),
        (40_002, EndDetails { kept_port: Some(40_002), ..EndDetails::default() }),
    ] {
        let report = ConnectionReport { details: Some(details.clone()), ..connected(&id) };
        hospital.send(&told(vec![report])).await;
        let is_told = async || {
            let report = pair.hospital.connection(&id).await.sender.report;
            report.and_then(|report| report.details).as_ref() == Some(&details)
        };
        hospital.living(until("the report never came", is_told)).await;
        let refused = pair.hospital.refused("POST", &approve, Some(json!({"sender_port": port}))).await;
        assert_eq!(refused.code, "conflict");
        assert!(refused.detail.contains(&port.to_string()) && refused.detail.contains(&id), "{}", refused.detail);
    }
    let told_to_the_other_side = pair.lab.connection(&id).await.sender.report.unwrap().details.unwrap();
    assert_eq!(told_to_the_other_side.kept_port, None);
    let _: Value = pair.hospital.post(&format!("/connections/{id}/terminate"), json!({})).await;
    let grant: Grant = pair.hospital.post(&approve, json!({"sender_port": 40_002})).await;
    assert!(grant.connection_id.is_some(), "the port is free");
}

#[tokio::test]
async fn words_of_a_gateway_reach_its_own_side_only_and_the_other_one_known_codes() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut hospital, _lab) = pair.watches().await;
    hospital.policy_until(|policy| !policy.connections.is_empty()).await;
    let why = async |org: &Org<'_>| {
        let report = org.connection(&id).await.sender.report?;
        Some((report.details?.path_reason?, report.problem))
    };
    for (code, text, known) in [
        ("RelayFirst", "direct paths are switched off on this side (tunnel.direct = false)", "RelayFirst"),
        ("Revoked by the platform", "the policy was revoked, call the number below", PathWhy::OTHER),
    ] {
        let path_reason = Some(PathWhy { code: code.into(), text: format!("{text}\u{202e}") });
        let details = EndDetails { path_reason, ..EndDetails::default() };
        let report = ConnectionReport { details: Some(details), problem: Some(text.into()), ..connected(&id) };
        hospital.send(&told(vec![report])).await;
        let own = PathWhy { code: code.into(), text: text.into() };
        let own = Some((own, Some(text.to_owned())));
        let is_shown = async || why(&pair.hospital).await == own;
        hospital.living(until("its own side was never shown it", is_shown)).await;
        let other = PathWhy { code: known.into(), text: String::new() };
        assert_eq!(why(&pair.lab).await, Some((other, None)), "{code}");
    }
}
