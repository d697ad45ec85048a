//! Channels of both directions.

use gateway_proto::{
    api::platform::{Channel, ChannelDirection},
    id::{ChannelId, ConnectionId},
};

use crate::world::{World, channel, page, server};

#[tokio::test]
async fn channels_of_both_directions_are_listed_and_a_sender_is_found_by_what_it_feeds() {
    let world = World::signed_in().await;
    let sender = Channel {
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
    };
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
