use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;
use crate::engine::{
    answers::MAX_ANSWER,
    plan::{EndState, Registered, plan},
};

/// An engine in three answers.
#[derive(Clone)]
struct World {
    channels: Vec<(String, String, u16, &'static str, u64)>,
}

impl World {
    fn new(count: usize) -> Self {
        let channel = |n: usize| (format!("c{n:05}"), format!("channel {n}"), 6000 + (n % 1000) as u16, "STARTED", 1);
        Self { channels: (1..=count).map(channel).collect() }
    }

    fn answers(&self) -> [Vec<u8>; 3] {
        let entry = |(id, name, ..): &(String, String, u16, &str, u64)| json!({ "string": [id, name] });
        let port =
            |(id, name, port, ..): &(String, String, u16, &str, u64)| json!({ "id": id, "name": name, "port": port });
        let status = |(id, _, _, state, deployed): &(String, String, u16, &str, u64)| json!({ "channelId": id, "state": state, "deployedDate": { "time": deployed } });
        let (names, ports, statuses): (Vec<_>, Vec<_>, Vec<_>) = (
            self.channels.iter().map(entry).collect(),
            self.channels.iter().map(port).collect(),
            self.channels.iter().filter(|channel| channel.3 != "UNDEPLOYED").map(status).collect(),
        );
        [
            json!({ "map": { "entry": names } }),
            json!({ "list": { "com.mirth.Ports": ports } }),
            json!({ "list": { "dashboardStatus": statuses } }),
        ]
        .map(|answer: Value| answer.to_string().into_bytes())
    }

    fn details(&self, ids: &[String], server_mode: bool) -> Vec<u8> {
        let channel = |id: &String| {
            json!({ "id": id, "sourceConnector": { "transportName": "TCP Listener", "properties": {
                "listenerConnectorProperties": { "host": "0.0.0.0" }, "serverMode": server_mode,
                "transmissionModeProperties": { "pluginPointName": "MLLP" } } } })
        };
        json!({ "list": { "channel": ids.iter().map(channel).collect::<Vec<_>>() } }).to_string().into_bytes()
    }
}

fn round(discovery: &mut Discovery, world: &World) -> usize {
    let [names, ports, statuses] = world.answers();
    let wanted = discovery.overview(&names, &ports, &statuses).unwrap();
    for ids in &wanted {
        assert!(ids.len() <= DETAILS_AT_ONCE);
        discovery.details(&world.details(ids, true)).unwrap();
    }
    wanted.iter().map(Vec::len).sum()
}

fn discovery() -> Discovery {
    Discovery::new(Ipv4Addr::new(127, 0, 0, 1).into())
}

#[test]
fn details_are_asked_for_once_and_again_when_something_shows_a_change() {
    let (mut discovery, mut world) = (discovery(), World::new(45));
    assert_eq!(round(&mut discovery, &world), 45);
    let quiet: usize = (0..REFRESH_ROUNDS / 2).map(|_| round(&mut discovery, &world)).sum();
    assert!(quiet <= 45, "{quiet} details in rounds without a change");
    world.channels[3].1 = "renamed".into();
    world.channels[4].4 = 2;
    assert!((2..=4).contains(&round(&mut discovery, &world)));
    let channels = discovery.channels();
    assert_eq!(channels[3].name, "renamed");
}

#[test]
fn every_channel_has_its_details_read_again_in_a_cycle_though_nothing_shows() {
    let (mut discovery, world) = (discovery(), World::new(30));
    round(&mut discovery, &world);
    let again: usize = (0..REFRESH_ROUNDS).map(|_| round(&mut discovery, &world)).sum();
    assert_eq!(again, 30);
}

#[test]
fn exposed_is_what_listens_in_server_mode_and_is_started() {
    let (mut discovery, mut world) = (discovery(), World::new(4));
    world.channels[1].3 = "STOPPED";
    world.channels[2].3 = "UNDEPLOYED";
    let [names, ports, statuses] = world.answers();
    let wanted = discovery.overview(&names, &ports, &statuses).unwrap().concat();
    assert!(discovery.channels().iter().all(|channel| channel.exposed().is_none()), "not before the details are known");
    discovery.details(&world.details(&wanted[..3], true)).unwrap();
    discovery.details(&world.details(&wanted[3..], false)).unwrap();
    let channels = discovery.channels();
    let exposed: Vec<_> = channels.iter().filter_map(|channel| channel.exposed().map(|l| l.address.unwrap())).collect();
    assert_eq!(exposed, [SocketAddr::from(([127, 0, 0, 1], 6001))]);
    assert_eq!(channels[2].state, EngineChannelState::Undeployed);
    assert!(channels[3].listener.is_some() && channels[3].listening().is_none(), "a client connects out");
}

#[test]
fn of_an_engine_that_takes_several_looks_no_registered_channel_is_missing_meanwhile() {
    let (mut discovery, world) = (discovery(), World::new(500));
    let registered = world.channels.iter().map(|(id, name, port, ..)| Registered {
        key: id.clone(),
        name: name.clone(),
        address: SocketAddr::from(([127, 0, 0, 1], *port)),
        engine_channel: Some(id.clone()),
    });
    let registered: Vec<_> = registered.collect();
    let mut known = Vec::new();
    for _ in 0..4 {
        let [names, ports, statuses] = world.answers();
        for ids in discovery.overview(&names, &ports, &statuses).unwrap().iter().take(200 / DETAILS_AT_ONCE) {
            discovery.details(&world.details(ids, true)).unwrap();
        }
        let steps = plan(&registered, &discovery.channels()).steps;
        assert!(steps.iter().all(|step| step.state == EndState::Started));
        known.push(steps.len());
    }
    assert!(known[0] == 200 && known.is_sorted() && known[3] == 500, "{known:?}");
}

#[test]
fn a_deleted_channel_is_gone_and_one_deleted_between_two_answers_is_no_error() {
    let (mut discovery, mut world) = (discovery(), World::new(3));
    let [names, ports, statuses] = world.answers();
    discovery.overview(&names, &ports, &statuses).unwrap();
    discovery.details(&world.details(&["c00001".into(), "c09999".into()], true)).unwrap();
    world.channels.remove(0);
    round(&mut discovery, &world);
    let ids: Vec<_> = discovery.channels().into_iter().map(|channel| channel.id).collect();
    assert_eq!(ids, ["c00002", "c00003"]);
}

#[test]
fn an_answer_that_is_not_understood_changes_nothing() {
    let (mut discovery, world) = (discovery(), World::new(2));
    round(&mut discovery, &world);
    let before = discovery.channels();
    let [names, ports, _] = world.answers();
    assert!(discovery.overview(&names, &ports, b"<list/>").is_err());
    assert!(discovery.details(&vec![b'['; MAX_ANSWER + 1]).is_err());
    assert_eq!(discovery.channels(), before);
}

#[test]
fn an_engine_with_too_many_channels_is_cut_to_those_that_listen_first() {
    let mut world = World::new(MAX_CHANNELS + 10);
    let last = world.channels.len() - 1;
    let mut discovery = discovery();
    let [names, _, statuses] = world.answers();
    // Only the last one has a port.
    world.channels.drain(..last);
    let [_, ports, _] = world.answers();
    discovery.overview(&names, &ports, &statuses).unwrap();
    let channels = discovery.channels();
    assert_eq!((channels.len(), discovery.left_out()), (MAX_CHANNELS, 10));
    assert!(channels.iter().any(|channel| channel.listener.is_some()));
}

/// One MLLP listener: what its dashboard and its stored form say.
fn listener_with(discovery: &mut Discovery, deployed_at: u64, revision_delta: u64, stored: u32) -> Option<u32> {
    let names = json!({ "map": { "entry": { "string": ["c1", "adt"] } } });
    let ports = json!({ "list": { "x.Ports": { "id": "c1", "name": "ADT", "port": 6661 } } });
    let status = json!({ "channelId": "c1", "state": "STARTED", "deployedRevisionDelta": revision_delta, "deployedDate": { "time": deployed_at } });
    let statuses = json!({ "list": { "dashboardStatus": status } });
    let [names, ports, statuses] = [names, ports, statuses].map(|answer| answer.to_string().into_bytes());
    let details = json!({ "list": { "channel": { "id": "c1", "sourceConnector": { "transportName": "TCP Listener", "properties": {
        "listenerConnectorProperties": { "host": "0.0.0.0" }, "maxConnections": stored,
        "transmissionModeProperties": { "pluginPointName": "MLLP" } } } } } });
    if !discovery.overview(&names, &ports, &statuses).unwrap().is_empty() {
        discovery.details(details.to_string().as_bytes()).unwrap();
    }
    discovery.channels()[0].listener.as_ref().unwrap().max_connections
}

#[test]
fn the_places_of_a_listener_are_those_that_run_and_not_those_that_are_stored() {
    let mut known = discovery();
    assert_eq!(listener_with(&mut known, 1, 0, 10), Some(10));
    assert_eq!(listener_with(&mut known, 1, 1, 50), Some(10), "saved, not deployed");
    assert_eq!(listener_with(&mut known, 1, 2, 60), Some(10));
    assert_eq!(listener_with(&mut known, 2, 0, 60), Some(60), "deployed");
    assert_eq!(listener_with(&mut discovery(), 1, 1, 50), None, "what was deployed was never seen");
}
