use gateway_proto::{
    api::{engine::EngineLink, gateway::EngineHead, platform::ChannelDirection},
    engine::{EngineChannelState, EngineCounts, EngineState},
    id::{ChannelId, ConnectionId, ServerId},
};

use super::*;

fn listener(id: &str, name: &str, port: u16, state: EngineChannelState) -> EngineChannel {
    let counts = EngineCounts { queued: 2, ..EngineCounts::default() };
    EngineChannel { state, counts, ..EngineChannel::example(id, name, port) }
}

#[test]
fn an_engine_shows_what_is_registered_what_is_new_and_what_is_missing() {
    let local = |n: u8, port, closed, destinations: &[&str]| SenderPort {
        connection: ConnectionId::new(1, [n; 10]),
        port,
        closed,
        destinations: destinations.iter().map(|name| (*name).to_owned()).collect(),
    };
    let engine = ServerEngine {
        server_id: ServerId::new(1, [0; 10]),
        head: Some(EngineHead {
            state: EngineState::Up,
            version: Some("4.5.2".into()),
            problem: None,
            left_out: 0,
            senders: vec![
                local(7, 6001, false, &["out / lab"]),
                local(8, 6002, true, &["out / ward"]),
                local(9, 6003, false, &[]),
            ],
            advice: vec!["switch the queue on".into()],
        }),
        reported_at: Some(97),
        channels: vec![
            listener("a", "adt", 6661, EngineChannelState::Stopped),
            listener("b", "oru", 6662, EngineChannelState::Started),
        ],
        links: vec![
            EngineLink { channel_id: ChannelId::new(1, [1; 10]), engine_channel: "a".into(), state: EndState::Stopped },
            EngineLink { channel_id: ChannelId::new(1, [2; 10]), engine_channel: "c".into(), state: EndState::Missing },
        ],
        proposals: vec!["b".into()],
    };
    let channel = |n: u8, name: &str, published| platform::Channel {
        id: ChannelId::new(1, [n; 10]),
        server_id: engine.server_id,
        name: name.into(),
        direction: ChannelDirection::Listener,
        engine: "127.0.0.1:1".into(),
        local_port: None,
        connection_id: None,
        feeds: None,
        behavior: "hl7v2-mllp".into(),
        published,
        public_name: "Feed".into(),
        public_description: String::new(),
        created_at: 0,
    };
    let sender = |n: u8, name: &str, feeds: &str| platform::Channel {
        direction: ChannelDirection::Sender,
        connection_id: Some(ConnectionId::new(1, [n; 10])),
        feeds: Some(feeds.into()),
        ..channel(n, name, false)
    };
    let registered = [
        channel(1, "adt", true),
        channel(2, "gone", false),
        sender(7, "Labor Süd", "South/lab"),
        sender(8, "South/ward", "South/ward"),
    ];
    let server: Server = serde_json::from_value(serde_json::json!({
        "id": engine.server_id, "name": "lab", "gateway": null, "gateway_version": null, "online": true,
        "last_seen_at": null, "policy_revision": 1, "applied_revision": 1, "policy_problem": null, "created_at": 0,
    }))
    .unwrap();
    let text = render(&server, &engine, &registered, 100).join("\n");
    for expected in [
        "Engine of lab: up, version 4.5.2, 1 of 2 channels started, 4 messages queued, 0 errors, told 3 s ago",
        "adt (Feed)",
        "new",
        "missing: the engine has no listening channel for 'gone'",
        "local port 6001 of 'Labor Süd' (feeds South/lab): used by out / lab",
        "local port 6002 of 'South/ward', closed now (the connection is paused or not in force): used by out / ward",
        &format!("local port 6003 of {}: used by nothing", ConnectionId::new(1, [9; 10])),
        "advice: switch the queue on",
        "channel publish CHANNEL --server 'lab'",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let mut port_only = listener("d", "orm", 6_663, EngineChannelState::Started);
    if let Some(listener) = &mut port_only.listener {
        (listener.transport, listener.server_mode) = (String::new(), false);
    }
    assert_eq!(row(&engine, &port_only, |_| None)[2], "not read yet (6663)");

    // What is no proposal is not published, and why is told.
    let mut client = listener("e", "client", 6_664, EngineChannelState::Started);
    if let Some(listener) = &mut client.listener {
        listener.server_mode = false;
    }
    let portless = EngineChannel { listener: None, ..listener("f", "files", 1, EngineChannelState::Started) };
    for (channel, words) in [
        (&engine.channels[0], "is registered already"),
        (&client, "connects out to port 6664"),
        (&portless, "listens on no port"),
        (&port_only, "more is not read yet"),
    ] {
        let told = no_proposal(&engine, channel);
        assert!(told.contains(words), "{told}");
    }
}
