//! Channels of both directions.

use gateway_proto::{
    api::{
        engine::ServerEngine,
        platform::{Channel, ChannelDirection},
    },
    id::{ChannelId, ConnectionId},
};
use serde_json::json;

use crate::world::{World, channel, page, server};

fn sender() -> Channel {
    Channel {
        id: ChannelId::new(2, [9; 10]),
        name: "to the clinic".into(),
        direction: ChannelDirection::Sender,
        engine: String::new(),
        local_port: Some(7001),
        connection_id: Some(ConnectionId::new(2, [9; 10])),
        feeds: Some("Clinic B/Orders".into()),
        published: false,
        public_name: String::new(),
        ..channel()
    }
}

#[tokio::test]
async fn channels_of_both_directions_are_listed_and_a_sender_is_found_by_what_it_feeds() {
    let (world, sender) = (World::signed_in().await, sender());
    world.control.answer("GET /api/v1/servers", 200, &page(vec![server(1, "lab")]));
    world.control.answer("GET /api/v1/channels", 200, &page(vec![channel()]));
    world.control.answer("GET /api/v1/channels?direction=any", 200, &page(vec![channel(), sender.clone()]));
    world.control.answer("GET /api/v1/channels?direction=sender", 200, &page(vec![sender.clone()]));
    let table = world.run(&["channel", "list"]).await.stdout;
    for part in ["listener", "127.0.0.1:6661", "ADT feed", "sender", "local port 7001", "Clinic B/Orders"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let only: Vec<Channel> = world.run(&["channel", "list", "--direction", "sender", "--json"]).await.json();
    assert_eq!(only, std::slice::from_ref(&sender));
    let path = format!("/api/v1/channels/{}", sender.id);
    world.control.answer(&format!("GET {path}"), 200, &sender);
    world.control.answer(&format!("PATCH {path}"), 200, &sender);
    for name in ["Clinic B/Orders", "to the clinic", "lab/to the clinic"] {
        let shown = world.run(&["channel", "show", name]).await.stdout;
        assert!(shown.contains("Feeds") && shown.contains("local port 7001"), "{shown}");
    }
    let shown: Channel = world.run(&["channel", "update", "to the clinic", "--name", "x", "--json"]).await.json();
    assert_eq!(shown, sender);
    assert_eq!(world.control.asked_once(&format!("PATCH {path}")).body["name"], "x");
}

#[tokio::test]
async fn what_is_for_listeners_is_refused_for_a_sender_called_by_its_name_in_the_platforms_words() {
    let (world, sender, lab) = (World::signed_in().await, sender(), server(1, "lab"));
    let engine = ServerEngine {
        server_id: lab.id,
        head: None,
        reported_at: None,
        channels: Vec::new(),
        links: Vec::new(),
        proposals: Vec::new(),
    };
    world.control.answer(&format!("GET /api/v1/servers/{}/engine", lab.id), 200, &engine);
    world.control.answer("GET /api/v1/servers", 200, &page(vec![lab]));
    world.control.answer("GET /api/v1/channels", 200, &page(vec![channel()]));
    world.control.answer("GET /api/v1/channels?direction=sender", 200, &page(vec![sender.clone()]));
    let refused = json!({"code": "conflict", "status": 409, "detail": "this channel is a sender"});
    let path = format!("/api/v1/channels/{}", sender.id);
    for (line, args) in [
        (format!("DELETE {path}"), &["channel", "delete", "Clinic B/Orders", "--yes"][..]),
        (format!("PATCH {path}"), &["channel", "publish", "Clinic B/Orders"]),
        (format!("GET {path}/access"), &["channel", "access", "Clinic B/Orders"]),
    ] {
        world.control.answer(&line, 409, &refused);
        let outcome = world.run(args).await;
        assert_ne!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stderr.contains("this channel is a sender"), "{outcome:?}");
        world.control.asked_once(&line);
    }
    let outcome = world.run(&["channel", "publish", "Clinic B/Labels"]).await;
    assert!(outcome.stderr.contains("neither registered nor proposed"), "{outcome:?}");
}
