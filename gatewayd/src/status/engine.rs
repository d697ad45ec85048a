//! What our engine says of itself, beside what its channels have to do with our connections.

use std::net::SocketAddr;

use gateway_proto::{
    api::gateway::{EngineHead, MAX_REPORT_ENGINE_BYTES, MAX_REPORT_ENGINE_LINES, SenderPort},
    engine::{
        EngineChannel, MAX_DESTINATIONS,
        advice::{advise, users},
    },
    id::ConnectionId,
    policy::LocalEnd,
};

use super::Connections;
use crate::control_client::EngineSnapshot;

impl Connections {
    /// The engine, with the local ports of our senders beside the destinations that use them.
    pub fn engine(&self) -> Option<EngineSnapshot> {
        let engine = self.engine.view()?;
        let view = self.authority.view();
        let connections = view.policy.iter().flat_map(|policy| &policy.connections);
        let (mut names, mut words) = (MAX_REPORT_ENGINE_BYTES / 2, MAX_REPORT_ENGINE_BYTES / 2);
        let senders = connections.filter(|entry| is_for_the_engine(&entry.local)).filter_map(|entry| {
            let open = self.registry.local_address(entry.id);
            let local = open.or_else(|| self.registry.kept_address(entry.id))?;
            Some((local, sender_port(entry.id, local, open.is_none(), &engine.channels, &mut names)))
        });
        let (local, senders): (Vec<_>, Vec<_>) = senders.take(MAX_REPORT_ENGINE_LINES).unzip();
        let advice =
            advise(&engine.channels, &local).into_iter().take(MAX_REPORT_ENGINE_LINES).map(|advice| advice.to_string());
        let head = EngineHead {
            state: engine.state,
            version: engine.version.clone(),
            problem: engine.problem.clone(),
            left_out: u32::try_from(engine.left_out).unwrap_or(u32::MAX),
            advice: fitting(advice, &mut words),
            senders,
        };
        Some(EngineSnapshot { head, channels: engine.channels.clone() })
    }
}

/// The local port of a sender, open or `closed`, beside the destinations that send to it.
fn sender_port(
    connection: ConnectionId,
    local: SocketAddr,
    closed: bool,
    channels: &[EngineChannel],
    room: &mut usize,
) -> SenderPort {
    let destinations = users(channels, local)
        .map(|(channel, destination)| format!("{} / {}", channel.name, destination.name))
        .take(MAX_DESTINATIONS);
    SenderPort { connection, port: local.port(), closed, destinations: fitting(destinations, room) }
}

/// Whether an end has a local port that destinations of the engine send to; that of an admin connection is for people.
fn is_for_the_engine(end: &LocalEnd) -> bool {
    matches!(end, LocalEnd::Sender { .. })
}

/// As many of the texts as there is room for, in bytes.
fn fitting(texts: impl Iterator<Item = String>, room: &mut usize) -> Vec<String> {
    let fits = |text: &String| room.checked_sub(text.len()).map(|rest| *room = rest).is_some();
    texts.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use gateway_proto::engine::EngineDestination;

    use super::*;

    #[test]
    fn no_destination_is_looked_for_at_the_local_port_of_an_administrator() {
        assert!(is_for_the_engine(&LocalEnd::Sender { port: 6001 }));
        assert!(!is_for_the_engine(&LocalEnd::AdminUser { port: 9443 }) && !is_for_the_engine(&LocalEnd::AdminOwner));
    }

    #[test]
    fn a_port_that_is_closed_now_stands_beside_its_destinations_all_the_same() {
        let destination = EngineDestination {
            id: 1,
            name: "to lab".into(),
            transport: "TCP Sender".into(),
            host: Some("localhost".into()),
            port: Some(6001),
            enabled: true,
            queue: true,
            validate_response: true,
        };
        let channel = EngineChannel { destinations: vec![destination], ..EngineChannel::example("a", "out", 6661) };
        let (connection, local) = (ConnectionId::new(1, [0; 10]), SocketAddr::from(([127, 0, 0, 1], 6001)));
        for closed in [true, false] {
            let shown = sender_port(connection, local, closed, std::slice::from_ref(&channel), &mut 100);
            let expected = SenderPort { connection, port: 6001, closed, destinations: vec!["out / to lab".into()] };
            assert_eq!(shown, expected);
        }
        let told = serde_json::json!({"connection": connection, "port": 6001, "destinations": []});
        let older: SenderPort = serde_json::from_value(told).unwrap();
        assert!(!older.closed, "an older gateway tells of open ports only");
    }

    #[test]
    fn texts_of_an_engine_take_no_more_room_than_there_is() {
        let (texts, mut room) = (|| std::iter::repeat_n("x".repeat(10), 9), 35);
        assert_eq!(fitting(texts().take(2), &mut room).len(), 2);
        assert_eq!(fitting(texts(), &mut room).len(), 1);
        assert_eq!((fitting(texts(), &mut room).len(), room), (0, 5));
    }
}
