//! Engines beside gateways: what their gateways tell, and registered channels that follow.

use std::time::Duration;

use gateway_proto::{
    api::{
        engine::ServerEngine,
        gateway::{EngineHead, EngineReport, MAX_REPORT_ENGINE_CHANNELS, Report, WatchRequest},
        platform::{AuditEntry, Channel, PublishedEndpoint},
    },
    engine::{EngineChannel, EngineChannelState, EngineState, plan::EndState},
    policy::{LocalEnd, Policy},
};
use serde_json::json;

use super::harness::{Control, Gateway, Org, Pair, until};

const LIMIT: Duration = Duration::from_secs(20);

fn channel(id: &str, name: &str, port: u16, state: EngineChannelState) -> EngineChannel {
    EngineChannel { state, ..EngineChannel::example(id, name, port) }
}

fn report(complete: bool, channels: Vec<EngineChannel>, gone: &[&str]) -> WatchRequest {
    let head = EngineHead {
        state: EngineState::Up,
        version: Some("4.5.2".into()),
        problem: None,
        left_out: 0,
        senders: Vec::new(),
        advice: vec!["advice\nin two lines".into()],
    };
    let gone = gone.iter().map(|id| (*id).to_owned()).collect();
    let engine = Some(EngineReport { head, complete, more: false, channels, gone });
    WatchRequest::Report(Report { engine, ..Report::default() })
}

fn listener(port: u16, engine_channel: Option<&str>) -> LocalEnd {
    LocalEnd::Listener { engine: ([127, 0, 0, 1], port).into(), engine_channel: engine_channel.map(str::to_owned) }
}

async fn engine_of(org: &Org<'_>, server: &str, what: &str, is: impl Fn(&ServerEngine) -> bool) -> ServerEngine {
    let wait = async {
        loop {
            let engine: ServerEngine = org.get(&format!("/servers/{server}/engine")).await;
            if is(&engine) {
                return engine;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("the engine never showed {what}"))
}

#[tokio::test]
async fn a_proposal_is_published_by_a_person_and_follows_the_engine_from_then_on() {
    use EngineChannelState::{Started, Stopped};
    let control = Control::start().await;
    let Pair { hospital, lab, lab_server: lis, lab_gateway: two, agreement, .. } = control.pair().await;
    let mut two = two.watch(&control).await;
    two.policy().await;
    let server = lis.id.to_string();

    two.send(&report(true, vec![channel("a", "adt", 6661, Started), channel("b", "oru", 6662, Stopped)], &[])).await;
    let engine = engine_of(&lab, &server, "two proposals", |engine| engine.proposals.len() == 2).await;
    let head = engine.head.unwrap();
    assert_eq!((head.state, head.advice[0].contains('\n')), (EngineState::Up, false), "words are cleaned");
    assert!(lab.list::<Channel>("/channels").await.is_empty(), "nothing is registered by itself");
    let endpoints = format!("/endpoints?agreement={agreement}");
    assert!(hospital.list::<PublishedEndpoint>(&endpoints).await.is_empty());

    // Only with the role, only what is there, only once.
    let path = format!("/servers/{server}/engine/channels");
    let body = json!({"engine_channel": "a", "public_name": "ADT feed"});
    let viewer = lab.user("viewer").await;
    assert_eq!(viewer.refused("POST", &path, Some(body.clone())).await.code, "forbidden");
    let unknown = json!({"engine_channel": "z", "public_name": "Z"});
    assert_eq!(lab.refused("POST", &path, Some(unknown)).await.code, "not_found");
    // Sent twice with a key, it is done once: channel and link in one transaction.
    let keyed = async || {
        let request = control.request("POST", &format!("/api/v1{path}")).bearer_auth(&lab.token);
        request.header("idempotency-key", "publish").json(&body).send().await.unwrap()
    };
    let (published, again) = (keyed().await, keyed().await);
    assert_eq!((published.status().as_u16(), again.status().as_u16()), (201, 201));
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    let published: Channel = published.json().await.unwrap();
    assert_eq!((published.name.as_str(), published.engine.as_str()), ("adt", "127.0.0.1:6661"));
    assert_eq!(lab.refused("POST", &path, Some(body)).await.code, "conflict");
    let seen: Vec<PublishedEndpoint> = hospital.list(&endpoints).await;
    assert_eq!((seen[0].name.as_str(), seen[0].stopped), ("ADT feed", false));
    let grant = json!({"agreement_id": agreement, "channel_id": published.id});
    let grant: gateway_proto::api::platform::Grant = lab.post("/grants", grant).await;
    let approved = format!("/grants/{}/approve", grant.id);
    let _: gateway_proto::api::platform::Grant = hospital.post(&approved, json!({})).await;
    two.policy().await;

    // Renamed and moved: name and policy follow.
    two.send(&report(false, vec![channel("a", "adt_new", 7001, Started)], &[])).await;
    let moved = listener(7001, Some("a"));
    two.policy_until(|policy| policy.connections.iter().any(|connection| connection.local == moved)).await;
    let shown: Channel = lab.get(&format!("/channels/{}", published.id)).await;
    assert_eq!((shown.name.as_str(), shown.public_name.as_str()), ("adt_new", "ADT feed"));
    let audit: Vec<AuditEntry> = lab.list("/audit").await;
    let entry = audit.iter().find(|entry| entry.act == "channel.follow").unwrap();
    assert!(entry.actor.starts_with("gateway ") && entry.detail.contains("'adt' to 'adt_new'"), "{entry:?}");

    // Stopped, then deleted: the owner sees which, a partner sees that it is stopped.
    two.send(&report(false, vec![channel("a", "adt_new", 7001, Stopped)], &[])).await;
    engine_of(&lab, &server, "stopped", |engine| engine.links[0].state == EndState::Stopped).await;
    assert!(hospital.list::<PublishedEndpoint>(&endpoints).await[0].stopped);
    two.send(&report(false, vec![], &["a"])).await;
    let engine = engine_of(&lab, &server, "missing", |engine| engine.links[0].state == EndState::Missing).await;
    assert_eq!(engine.proposals, ["b"]);
    assert!(hospital.list::<PublishedEndpoint>(&endpoints).await[0].stopped);
    let audit: Vec<AuditEntry> = lab.list("/audit").await;
    let followed = |text: &str| audit.iter().filter(|e| e.act == "channel.follow" && e.detail.contains(text)).count();
    assert_eq!((followed("stopped in the engine"), followed("deleted in the engine")), (1, 1));

    // Somebody else's engine is nobody's business.
    assert_eq!(hospital.refused("GET", &format!("/servers/{server}/engine"), None).await.code, "not_found");
}

#[tokio::test]
async fn a_policy_names_the_channel_of_the_engine_and_a_person_binds_the_endpoint_to_a_successor() {
    use EngineChannelState::Started;
    let control = Control::start().await;
    let Pair { hospital, lab, lab_server: lis, lab_gateway: two, agreement, .. } = control.pair().await;
    let mut two = two.watch(&control).await;
    two.policy().await;
    let server = lis.id.to_string();

    // Registered by hand: which channel of the engine it is, nobody said yet.
    let body = json!({"server_id": lis.id, "name": "adt", "engine": "127.0.0.1:6661", "public_name": "ADT feed"});
    let adt: Channel = lab.post("/channels", body).await;
    let grant = json!({"agreement_id": agreement, "channel_id": adt.id});
    let grant: gateway_proto::api::platform::Grant = lab.post("/grants", grant).await;
    let _: gateway_proto::api::platform::Grant =
        hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    let is = |policy: &Policy, end: LocalEnd| policy.connections.iter().any(|connection| connection.local == end);
    two.policy_until(|policy| is(policy, listener(6661, None))).await;
    two.send(&report(true, vec![channel("a", "adt", 6661, Started)], &[])).await;
    two.policy_until(|policy| is(policy, listener(6661, Some("a")))).await;

    // Deleted and imported anew, under another id on the same port: that is another channel until somebody says so.
    let again = vec![channel("b", "adt", 6661, Started), channel("c", "orders", 7002, Started)];
    two.send(&report(false, again, &["a"])).await;
    let engine = engine_of(&lab, &server, "missing", |engine| engine.links[0].state == EndState::Missing).await;
    assert_eq!(engine.proposals, ["b", "c"]);
    let path = format!("/channels/{}", adt.id);
    let to = |id: &str| Some(json!({"engine_channel": id}));
    let viewer = lab.user("viewer").await;
    assert_eq!(viewer.refused("PATCH", &path, to("b")).await.code, "forbidden");
    assert_eq!(lab.refused("PATCH", &path, to("z")).await.code, "not_found");
    let both = json!({"engine_channel": "b", "engine": "127.0.0.1:9"});
    assert_eq!(lab.refused("PATCH", &path, Some(both)).await.code, "invalid");
    let orders = json!({"engine_channel": "c", "public_name": "Orders"});
    let _: Channel = lab.post(&format!("/servers/{server}/engine/channels"), orders).await;
    assert_eq!(lab.refused("PATCH", &path, to("c")).await.code, "conflict");
    let bound = lab.send("PATCH", &path, to("b")).await;
    assert_eq!(bound.status(), 200);
    two.policy_until(|policy| is(policy, listener(6661, Some("b")))).await;
    let engine: ServerEngine = lab.get(&format!("/servers/{server}/engine")).await;
    let link = engine.links.iter().find(|link| link.channel_id == adt.id).unwrap();
    assert_eq!((link.engine_channel.as_str(), link.state), ("b", EndState::Started));
    let audit: Vec<AuditEntry> = lab.list("/audit").await;
    let has = |act: &str, text: &str| audit.iter().any(|entry| entry.act == act && entry.detail.contains(text));
    assert!(has("channel.follow", "recognised as the engine's channel a"));
    assert!(has("channel.update", "engine_channel: a → b"));
}

#[tokio::test]
async fn where_a_channel_that_follows_its_engine_is_reached_is_the_engines_to_say_until_it_is_unlinked() {
    use EngineChannelState::Started;
    let control = Control::start().await;
    let Pair { lab, lab_server: lis, lab_gateway: two, .. } = control.pair().await;
    let mut two = two.watch(&control).await;
    two.policy().await;
    let server = lis.id.to_string();
    let body = json!({"server_id": lis.id, "name": "adt", "engine": "127.0.0.1:6661", "public_name": "ADT feed"});
    let adt: Channel = lab.post("/channels", body).await;
    let path = format!("/channels/{}", adt.id);
    let is_at = async |port: u16| lab.get::<Channel>(&path).await.engine == format!("127.0.0.1:{port}");
    two.send(&report(true, vec![channel("a", "adt", 6661, Started)], &[])).await;
    engine_of(&lab, &server, "a link", |engine| engine.links.len() == 1).await;
    two.send(&report(false, vec![channel("a", "adt", 7771, Started)], &[])).await;
    until("the channel never followed", async || is_at(7771).await).await;

    // What was written down before it moved is no reason to take it back.
    let refused = lab.refused("PATCH", &path, Some(json!({"engine": "127.0.0.1:6661", "name": "adt"}))).await;
    assert_eq!(refused.code, "conflict");
    assert!(refused.detail.contains("'adt'") && refused.detail.contains("--unlink"), "{}", refused.detail);
    assert!(is_at(7771).await, "a policy that names channel and port must name the same");
    let same = json!({"engine": "127.0.0.1:7771", "public_description": "for partners"});
    assert_eq!(lab.send("PATCH", &path, Some(same)).await.status(), 200, "everything else may change");

    let unlinked = json!({"engine_channel": "", "engine": "127.0.0.1:6661"});
    assert_eq!(lab.send("PATCH", &path, Some(unlinked)).await.status(), 200);
    two.send(&report(false, vec![channel("b", "oru", 6662, Started)], &[])).await;
    let engine = engine_of(&lab, &server, "the other one", |engine| engine.proposals.len() == 2).await;
    assert!(engine.links.is_empty() && is_at(6661).await, "nobody's word but ours");
}

#[tokio::test]
async fn a_report_beyond_its_limits_ends_the_watch_and_changes_nothing() {
    let control = Control::start().await;
    let lab = control.organization("Lab").await;
    let lis = lab.server("lis").await;
    let gateway = Gateway::new(1);
    lab.enroll(&lis, &gateway).await;
    let many = (0..=MAX_REPORT_ENGINE_CHANNELS).map(|n| channel(&format!("c{n}"), "x", 1, EngineChannelState::Started));
    let odd = channel(&"x".repeat(65), "x", 1, EngineChannelState::Started);
    for channels in [many.collect(), vec![odd]] {
        let mut watch = gateway.watch(&control).await;
        watch.policy().await;
        watch.send(&report(true, channels, &[])).await;
        while watch.event().await.is_some() {}
    }
    let engine: ServerEngine = lab.get(&format!("/servers/{}/engine", lis.id)).await;
    assert!(engine.head.is_none() && engine.channels.is_empty());
}

#[tokio::test]
async fn a_name_that_is_taken_under_another_spelling_is_left_and_everything_else_followed() {
    use EngineChannelState::Started;
    let control = Control::start().await;
    let lab = control.organization("Lab").await;
    let lis = lab.server("lis").await;
    let gateway = Gateway::new(1);
    lab.enroll(&lis, &gateway).await;
    let mut watch = gateway.watch(&control).await;
    watch.policy().await;
    let server = lis.id.to_string();
    let mut registered = Vec::new();
    for (name, port) in [("ADT In", 6661), ("Lab", 6662)] {
        let body = json!({"server_id": lis.id, "name": name, "engine": format!("127.0.0.1:{port}")});
        registered.push(lab.post::<Channel>("/channels", body).await);
    }
    let both = |name: &str, port: u16| vec![channel("a", "ADT In", 6661, Started), channel("b", name, port, Started)];
    watch.send(&report(true, both("Lab", 6662), &[])).await;
    engine_of(&lab, &server, "two links", |engine| engine.links.len() == 2).await;
    // To people it is the same as the other one's; where it is reached is followed all the same, and so is what comes later.
    for (name, port, shown) in [("ADT\u{a0}In", 7002, "Lab"), ("ＡＤＴ in", 7003, "Lab"), ("Results", 7004, "Results")]
    {
        watch.send(&report(false, both(name, port), &[])).await;
        let followed = async {
            loop {
                let channel: Channel = lab.get(&format!("/channels/{}", registered[1].id)).await;
                if channel.engine == format!("127.0.0.1:{port}") {
                    return channel.name;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let name = tokio::time::timeout(LIMIT, followed).await.expect("the new port was never followed");
        assert_eq!(name, shown);
    }
}
