//! What differs between the channels an engine has and those registered on the platform, and what follows from it.
//!
//! A registered channel is known to be one of the engine by the engine's id, which it keeps when it is renamed. What is
//! new in the engine is a proposal and stays one: nothing is ever published by itself.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{EngineChannel, EngineChannelState};

/// A registered listener channel, as far as the comparison needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered<K> {
    /// Whose it is to the caller.
    pub key: K,
    /// Internal name.
    pub name: String,
    /// Where the gateway dials.
    pub address: SocketAddr,
    /// The engine's id, once known.
    pub engine_channel: Option<String>,
}

/// State of the engine's end of a registered channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    /// It listens.
    Started,
    /// It does not: stopped, paused, or out of service.
    Stopped,
    /// The engine has no such channel any more, or it does not listen any more.
    Missing,
}

/// What became of one registered channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<K> {
    /// Which.
    pub key: K,
    /// The engine's id.
    pub engine_channel: String,
    /// State of the engine's end.
    pub state: EndState,
    /// The engine has another name for it; none: the same.
    pub name: Option<String>,
    /// It is reached at another address; none: the same.
    pub address: Option<SocketAddr>,
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<K> {
    /// Registered channels that are, or were, channels of the engine.
    pub steps: Vec<Step<K>>,
    /// Ids of engine channels that listen and are not registered.
    pub proposals: Vec<String>,
}

/// Compares. `registered` are the listener channels of one server.
///
/// A registered channel without an engine id is recognised by its port, if exactly one channel of the engine listens
/// there and no other registered channel is that one. A name is not taken over when another registered channel has it.
pub fn plan<K: Clone + PartialEq>(registered: &[Registered<K>], found: &[EngineChannel]) -> Plan<K> {
    let by_id: BTreeMap<&str, &EngineChannel> = found.iter().map(|channel| (channel.id.as_str(), channel)).collect();
    let taken: Vec<&str> = registered.iter().filter_map(|known| known.engine_channel.as_deref()).collect();
    let steps: Vec<Step<K>> = registered
        .iter()
        .filter_map(|known| {
            let id = match &known.engine_channel {
                Some(id) => id.clone(),
                None => recognise(known, registered, found, &taken)?,
            };
            let channel = by_id.get(id.as_str()).copied();
            Some(step(known, id, channel, registered))
        })
        .collect();
    let is_known = |channel: &&EngineChannel| steps.iter().any(|step| step.engine_channel == channel.id);
    let proposals = found
        .iter()
        .filter(|channel| channel.listening().is_some_and(|listener| listener.behavior.is_some()) && !is_known(channel))
        .map(|channel| channel.id.clone())
        .collect();
    Plan { steps, proposals }
}

fn recognise<K: PartialEq>(
    known: &Registered<K>,
    registered: &[Registered<K>],
    found: &[EngineChannel],
    taken: &[&str],
) -> Option<String> {
    let listens_there =
        |channel: &&EngineChannel| channel.listening().is_some_and(|listener| listener.address == Some(known.address));
    let mut candidates = found.iter().filter(listens_there);
    let (first, second) = (candidates.next()?, candidates.next());
    let others = registered.iter().filter(|other| other.key != known.key);
    let is_alone = others.clone().all(|other| other.address != known.address);
    (second.is_none() && is_alone && !taken.contains(&first.id.as_str())).then(|| first.id.clone())
}

fn step<K: Clone + PartialEq>(
    known: &Registered<K>,
    engine_channel: String,
    channel: Option<&EngineChannel>,
    registered: &[Registered<K>],
) -> Step<K> {
    let listener = channel.and_then(EngineChannel::listening);
    let state = match (channel, listener) {
        (Some(channel), Some(_)) if channel.state == EngineChannelState::Started => EndState::Started,
        (Some(_), Some(_)) => EndState::Stopped,
        (_, _) => EndState::Missing,
    };
    let is_free =
        |name: &str| registered.iter().all(|other| other.key == known.key || !other.name.eq_ignore_ascii_case(name));
    let name = channel.map(|channel| channel.name.clone());
    let address = listener.and_then(|listener| listener.address);
    Step {
        key: known.key.clone(),
        engine_channel,
        state,
        name: name.filter(|name| *name != known.name && !name.is_empty() && is_free(name)),
        address: address.filter(|address| *address != known.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineCounts, EngineListener};

    fn listens(id: &str, name: &str, port: u16) -> EngineChannel {
        EngineChannel {
            id: id.into(),
            name: name.into(),
            state: EngineChannelState::Started,
            undeployed_changes: false,
            listener: Some(EngineListener {
                transport: "TCP Listener".into(),
                behavior: Some("hl7v2-mllp".into()),
                host: "0.0.0.0".into(),
                port,
                address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
                max_connections: Some(10),
                tls: false,
                server_mode: true,
            }),
            destinations: Vec::new(),
            counts: EngineCounts::default(),
        }
    }

    fn registered(key: u8, name: &str, port: u16, engine_channel: Option<&str>) -> Registered<u8> {
        Registered {
            key,
            name: name.into(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            engine_channel: engine_channel.map(str::to_owned),
        }
    }

    fn unchanged(key: u8, id: &str) -> Step<u8> {
        Step { key, engine_channel: id.into(), state: EndState::Started, name: None, address: None }
    }

    #[test]
    fn a_renamed_channel_and_a_moved_port_are_followed_by_id() {
        let known = [registered(1, "adt", 6661, Some("a")), registered(2, "oru", 6662, Some("b"))];
        let found = [listens("a", "adt_in", 6661), listens("b", "oru", 7000)];
        let expected = [
            Step { name: Some("adt_in".into()), ..unchanged(1, "a") },
            Step { address: Some(SocketAddr::from(([127, 0, 0, 1], 7000))), ..unchanged(2, "b") },
        ];
        assert_eq!(plan(&known, &found), Plan { steps: expected.into(), proposals: vec![] });
    }

    #[test]
    fn stopped_paused_and_undeployed_are_stopped_and_deleted_is_missing() {
        let known = [registered(1, "adt", 6661, Some("a"))];
        for state in [EngineChannelState::Stopped, EngineChannelState::Paused, EngineChannelState::Undeployed] {
            let found = [EngineChannel { state, ..listens("a", "adt", 6661) }];
            assert_eq!(plan(&known, &found).steps[0].state, EndState::Stopped, "{state}");
        }
        assert_eq!(plan(&known, &[]).steps[0].state, EndState::Missing);
        let mut client = listens("a", "adt", 6661);
        client.listener.as_mut().unwrap().server_mode = false;
        let step = &plan(&known, &[client]).steps[0];
        assert_eq!((step.state, step.address), (EndState::Missing, None), "it connects out now");
    }

    #[test]
    fn what_is_new_is_proposed_whatever_its_state_and_never_twice() {
        let stopped = EngineChannel { state: EngineChannelState::Stopped, ..listens("b", "new", 6662) };
        let mut reader = listens("c", "files", 1);
        reader.listener = None;
        let known = [registered(1, "adt", 6661, Some("a"))];
        let plan = plan(&known, &[listens("a", "adt", 6661), stopped, reader]);
        assert_eq!(plan.proposals, ["b"]);
    }

    #[test]
    fn a_channel_registered_by_hand_is_recognised_by_its_port_if_there_is_no_doubt() {
        let by_hand = registered(1, "adt", 6661, None);
        let found = [listens("a", "adt_in", 6661)];
        assert_eq!(plan(std::slice::from_ref(&by_hand), &found).steps[0].engine_channel, "a");
        let two = [listens("a", "adt_in", 6661), listens("b", "other", 6661)];
        assert_eq!(plan(std::slice::from_ref(&by_hand), &two).steps, []);
        let twice = [by_hand.clone(), registered(2, "same", 6661, None)];
        assert_eq!(plan(&twice, &found).steps, []);
        let taken = [by_hand, registered(2, "same", 6662, Some("a"))];
        assert_eq!(plan(&taken, &found).steps.len(), 1);
    }

    #[test]
    fn a_name_that_another_channel_has_is_not_taken_over() {
        let known = [registered(1, "adt", 6661, Some("a")), registered(2, "ORU", 6662, Some("b"))];
        let found = [listens("a", "oru", 6661), listens("b", "ORU", 6662)];
        assert_eq!(plan(&known, &found).steps[0].name, None);
    }
}
