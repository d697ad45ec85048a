use gateway_proto::{
    api::{
        gateway::{ConnectionReport, EndDetails, PathKind, PathWhy},
        platform::{Connection, DirectoryEntry, Grant, PeeringRequest, PublishedEndpoint, Server},
    },
    peering::{AgreementStatus, ConnectionStatus, GrantStatus, PeeringStatus},
    policy::{Activation, LocalEnd},
    signed::RelayToken,
};
use serde_json::{Value, json};

use super::{
    harness::{Control, Gateway},
    reports::{connected, told},
};

#[tokio::test]
async fn two_organizations_get_from_nothing_to_an_active_connection() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);

    // 1: servers and enrolment
    let (sender, receiver) = (hospital.server("main").await, lab.server("lis").await);
    let (one, two) = (Gateway::new(1), Gateway::new(2));
    let answer = hospital.enroll(&sender, &one).await;
    assert_eq!((answer.server_name.as_str(), answer.organization_name.as_str()), ("main", "Hospital"));
    lab.enroll(&receiver, &two).await;
    let (mut one, mut two) = (one.watch(&control).await, two.watch(&control).await);
    assert!(one.policy().await.connections.is_empty());
    assert!(two.policy().await.connections.is_empty());

    // 2: directory and peering request
    let found: Vec<DirectoryEntry> = hospital.list("/directory?q=LAB").await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].relation, "none");
    let body = json!({"organization_id": found[0].id, "message": "for results"});
    let request: PeeringRequest = hospital.post("/peering-requests", body).await;
    assert_eq!((request.direction.as_str(), request.status), ("outgoing", PeeringStatus::Pending));

    // 3: agreement
    let received: Vec<PeeringRequest> = lab.list("/peering-requests").await;
    assert_eq!((received[0].direction.as_str(), received[0].peer_name.as_str()), ("incoming", "Hospital"));
    let accepted: PeeringRequest = lab.post(&format!("/peering-requests/{}/accept", request.id), json!({})).await;
    let agreement = accepted.agreement_id.unwrap();
    assert_eq!(hospital.agreement(&agreement.to_string()).await.status, AgreementStatus::Active);

    // 4: channel, endpoint, grant
    let channel = lab.channel(&receiver, "Lab orders").await;
    let seen: Vec<PublishedEndpoint> = hospital.list(&format!("/endpoints?agreement={agreement}")).await;
    assert_eq!((seen.len(), seen[0].name.as_str()), (1, "Lab orders"));
    assert!(!serde_json::to_string(&seen).unwrap().contains("internal"), "internal names stay inside");
    let grant: Grant = lab.post("/grants", json!({"agreement_id": agreement, "channel_id": channel.id})).await;
    assert_eq!((grant.direction.as_str(), grant.status), ("given", GrantStatus::Pending));
    let body = json!({"sender_port": 6661});
    let grant: Grant = hospital.post(&format!("/grants/{}/approve", grant.id), body).await;
    assert_eq!(grant.status, GrantStatus::Active);

    // 5: connection, policies, activation
    let id = grant.connection_id.unwrap();
    let policy = one.policy().await;
    assert_eq!(policy.connections[0].activation, Activation::Ready);
    assert_eq!(policy.connections[0].local, LocalEnd::Sender { port: 6661 });
    let other = two.policy().await;
    let listener = LocalEnd::Listener { engine: "127.0.0.1:6661".parse().unwrap(), engine_channel: None };
    assert_eq!(other.connections[0].local, listener);
    assert_eq!(policy.connections[0].secrets, other.connections[0].secrets, "both ends share the secret");
    assert_eq!(policy.peers[0].pair_secret, other.peers[0].pair_secret);
    assert_eq!(policy.peers[0].server.name, "lis");
    let policy = one.policy().await;
    assert_eq!(policy.connection(id).unwrap().activation, Activation::Active);
    two.policy_until(|policy| policy.connection(id).unwrap().activation == Activation::Active).await;
    let both = |c: &Connection| c.policy_in_force_since.is_some();
    let shown = lab.until(&id.to_string(), "confirmed", both).await;
    assert_eq!(shown.status, ConnectionStatus::Active);
    assert_eq!((shown.sender.server_name.as_str(), shown.sender.organization_name.as_str()), ("main", "Hospital"));
    assert_eq!(shown.listener.organization_name, "Self");

    // What a gateway reports is shown, as long as it watches.
    let report = ConnectionReport { path: Some(PathKind::Direct), ..connected(&id.to_string()) };
    one.send(&told(vec![report])).await;
    let shown = one.living(lab.until(&id.to_string(), "reported", |c| c.sender.report.is_some())).await;
    assert_eq!(shown.sender.report.clone().unwrap().path, Some(PathKind::Direct));
    assert_eq!((shown.sender.policy_confirmed_at, shown.sender.policy_stale), (None, None), "an older gateway");
    let servers: Vec<Server> = hospital.list("/servers").await;
    assert!(servers[0].online && servers[0].gateway_version.as_deref() == Some("1.2.3"));

    // Also why, and how old what it rests on is.
    let why = PathWhy { code: "DirectProved".into(), text: "the direct path carried a full round trip".into() };
    let details = |policy_unconfirmed_since| EndDetails {
        path_reason: Some(why.clone()),
        last_acknowledged_at: Some(1_700_000_000_000),
        policy_unconfirmed_since,
        ..EndDetails::default()
    };
    let report = |details| told(vec![ConnectionReport { details: Some(details), ..connected(&id.to_string()) }]);
    one.send(&report(details(None))).await;
    let text = id.to_string();
    let known = hospital.until(&text, "confirmed", |c| c.sender.policy_confirmed_at.is_some());
    let shown = one.living(known).await;
    assert_eq!(shown.sender.report.unwrap().details, Some(details(None)));
    let shown = lab.connection(&id.to_string()).await;
    let why_told = PathWhy { text: String::new(), ..why.clone() };
    let told_to_the_other_side = EndDetails { path_reason: Some(why_told), ..details(None) };
    assert_eq!(shown.sender.report.unwrap().details, Some(told_to_the_other_side));
    assert_eq!(shown.sender.policy_stale, Some(false));
    one.send(&report(details(Some(1_700_000_000)))).await;
    let shown = one.living(lab.until(&text, "stale", |c| c.sender.policy_stale == Some(true))).await;
    assert_eq!(shown.sender.policy_confirmed_at, Some(1_700_000_000));
    assert_eq!(shown.listener.policy_confirmed_at, None, "it has reported nothing yet");
    drop(one);
    // Not since it was last heard, that is.
    let last_heard = |c: &Connection| c.sender.report.is_none() && c.sender.policy_confirmed_at > Some(1_700_000_000);
    lab.until(&id.to_string(), "without report, confirmed when it was last heard", last_heard).await;
}

#[tokio::test]
async fn self_peering_is_accepted_at_once_and_connects_two_own_servers() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let (a, b) = (hospital.server("a").await, hospital.server("b").await);
    let (one, two) = (Gateway::new(1), Gateway::new(2));
    hospital.enroll(&a, &one).await;
    hospital.enroll(&b, &two).await;
    let request: PeeringRequest = hospital.post("/peering-requests", json!({"organization_id": hospital.id})).await;
    assert_eq!((request.peer_name.as_str(), request.status), ("Self", PeeringStatus::Accepted));
    let channel = hospital.channel(&b, "Own").await;
    let body = json!({"agreement_id": request.agreement_id, "channel_id": channel.id});
    let problem = hospital.refused("POST", "/grants", Some(body)).await;
    assert!(problem.detail.contains("sender_server_id"), "{}", problem.detail);
    let body = json!({
        "agreement_id": request.agreement_id, "channel_id": channel.id, "sender_server_id": a.id,
    });
    let grant: Grant = hospital.post("/grants", body).await;
    assert_eq!((grant.direction.as_str(), grant.status), ("self", GrantStatus::Active));
    let again: Grant = hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    assert_eq!(again.connection_id, grant.connection_id, "repeating an act changes nothing");
    let (mut one, mut two) = (one.watch(&control).await, two.watch(&control).await);
    let active = |policy: &gateway_proto::policy::Policy| policy.connections[0].activation == Activation::Active;
    one.policy().await;
    two.policy().await;
    one.policy_until(active).await;
    two.policy_until(active).await;
}

#[tokio::test]
async fn a_server_connected_with_itself_gets_both_ends() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let server = hospital.server("a").await;
    let gateway = Gateway::new(1);
    hospital.enroll(&server, &gateway).await;
    let request: PeeringRequest = hospital.post("/peering-requests", json!({"organization_id": hospital.id})).await;
    let channel = hospital.channel(&server, "Loop").await;
    let body = json!({"agreement_id": request.agreement_id, "channel_id": channel.id});
    let _: Grant = hospital.post("/grants", body).await;
    let mut watch = gateway.watch(&control).await;
    let policy = watch.policy().await;
    assert_eq!(policy.connections.len(), 2);
    assert!(policy.peers.is_empty());
    watch.policy_until(|policy| policy.connections[0].activation == Activation::Active).await;
}

#[tokio::test]
async fn a_relay_added_to_the_map_reaches_policies_and_tokens() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy().await;
    let relay = gateway_proto::id::RelayId::new(1, [7; 10]);
    let body =
        json!({"id": relay, "name": "one", "url": "wss://relay.example:443/relay", "stun": ["relay.example:3478"]});
    let create = |token: &str| {
        control.request("POST", "/api/v1/relays").header("authorization", format!("Operator {token}")).json(&body)
    };
    assert_eq!(create("wrong").send().await.unwrap().status(), 401);
    assert_eq!(create(&control.operator).send().await.unwrap().status(), 201);
    let policy = watch.policy().await;
    assert_eq!(policy.relays[0].id, relay);
    while watch.tokens.len() < 2 {
        if let Some(gateway_proto::api::gateway::WatchEvent::RelayToken { token }) = watch.event().await {
            watch.tokens.push(token);
        }
    }
    let trusted = [control.ready.policy_key.parse().unwrap()];
    let token = RelayToken::verify(&watch.tokens[1], &trusted, control.clock.unix_secs()).unwrap();
    assert_eq!((token.key, token.relays), (pair.hospital_gateway.key.public(), vec![relay]));
    let relays: Vec<Value> = pair.lab.list("/relays").await;
    assert_eq!(relays.len(), 1);
    let update = |body: Value| {
        let path = format!("/api/v1/relays/{relay}");
        let authorization = format!("Operator {}", control.operator);
        control.request("PATCH", &path).header("authorization", authorization).json(&body).send()
    };
    assert_eq!(update(json!({"region": "EU North"})).await.unwrap().status(), 422);
    let revision = policy.revision;
    assert_eq!(update(json!({"name": "uno"})).await.unwrap().status(), 200);
    assert_eq!(update(json!({"region": "eu-north"})).await.unwrap().status(), 200);
    let policy = watch.policy().await;
    assert!(policy.revision > revision);
    assert_eq!(policy.relays[0].region.as_deref(), Some("eu-north"));
    let relays: Vec<Value> = pair.lab.list("/relays").await;
    assert_eq!((relays[0]["name"].as_str(), relays[0]["region"].as_str()), (Some("uno"), Some("eu-north")));
}
