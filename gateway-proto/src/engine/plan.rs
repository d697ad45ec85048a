//! What differs between the channels an engine has and those registered on the platform, and what follows from it.
//!
//! A registered channel is known to be one of the engine by the engine's id, which it keeps when it is renamed. What is
//! new in the engine is a proposal and stays one: nothing is ever published by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use super::{EngineChannel, EngineChannelState, EngineListener};
use crate::names::fold;

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

/// Compares. `registered` are the listener channels of one server; it takes as long as there are channels, not their square.
///
/// A registered channel without an engine id is recognised by its port, if exactly one channel of the engine listens
/// there and no other registered channel is that one. A name is not taken over when another registered channel has it, or one that
/// is the same to people ([`fold`]), or is about to take it.
pub fn plan<K: Clone>(registered: &[Registered<K>], found: &[EngineChannel]) -> Plan<K> {
    let by_id: BTreeMap<&str, &EngineChannel> = found.iter().map(|channel| (channel.id.as_str(), channel)).collect();
    let ports = Ports::of(registered, found);
    let mut names: BTreeSet<String> = registered.iter().map(|known| fold(&known.name)).collect();
    let mut steps = Vec::with_capacity(registered.len());
    for known in registered {
        let id = known.engine_channel.clone().or_else(|| ports.recognise(known.address));
        let Some(id) = id else { continue };
        let channel = by_id.get(id.as_str()).copied();
        let Some(mut step) = step(known, id, channel) else { continue };
        step.name = step.name.filter(|name| takes(&mut names, &known.name, name));
        steps.push(step);
    }
    let proposals = proposals(&steps, found);
    Plan { steps, proposals }
}

/// What listens and is not one of those that are registered.
fn proposals<K>(steps: &[Step<K>], found: &[EngineChannel]) -> Vec<String> {
    let known: BTreeSet<&str> = steps.iter().map(|step| step.engine_channel.as_str()).collect();
    let is_new = |channel: &&EngineChannel| {
        channel.listening().is_some_and(|listener| listener.behavior.is_some()) && !known.contains(channel.id.as_str())
    };
    found.iter().filter(is_new).map(|channel| channel.id.clone()).collect()
}

/// What becomes of one registered channel that is, or was, this one of the engine; `channel`: how it is there, none: it is not. Whether
/// a new name is free, is for the caller to know. None: whether it listens is not known, and it stays as it is. A gateway that was just started
/// reads the details of a large engine's channels over several looks.
pub fn step<K: Clone>(
    known: &Registered<K>,
    engine_channel: String,
    channel: Option<&EngineChannel>,
) -> Option<Step<K>> {
    if channel.and_then(|channel| channel.listener.as_ref()).is_some_and(EngineListener::is_unread) {
        return None;
    }
    let listener = channel.and_then(EngineChannel::listening);
    let state = match (channel, listener) {
        (Some(channel), Some(_)) if channel.state == EngineChannelState::Started => EndState::Started,
        (Some(_), Some(_)) => EndState::Stopped,
        (_, _) => EndState::Missing,
    };
    let name = channel.map(|channel| channel.name.clone());
    let address = listener.and_then(|listener| listener.address);
    Some(Step {
        key: known.key.clone(),
        engine_channel,
        state,
        name: name.filter(|name| *name != known.name && !name.is_empty()),
        address: address.filter(|address| *address != known.address),
    })
}

/// Who listens where, and is registered for where.
struct Ports<'a> {
    listening: BTreeMap<SocketAddr, Vec<&'a str>>,
    registered: BTreeMap<SocketAddr, usize>,
    /// Channels of the engine that are known to be registered.
    taken: BTreeSet<&'a str>,
}

impl<'a> Ports<'a> {
    fn of<K>(registered: &'a [Registered<K>], found: &'a [EngineChannel]) -> Self {
        let taken = registered.iter().filter_map(|known| known.engine_channel.as_deref()).collect();
        let mut ports = Self { listening: BTreeMap::new(), registered: BTreeMap::new(), taken };
        for channel in found {
            if let Some(address) = channel.listening().and_then(|listener| listener.address) {
                ports.listening.entry(address).or_default().push(&channel.id);
            }
        }
        for known in registered {
            *ports.registered.entry(known.address).or_default() += 1;
        }
        ports
    }

    /// The channel of the engine that the one registered for this port is.
    fn recognise(&self, address: SocketAddr) -> Option<String> {
        let [only] = self.listening.get(&address)?.as_slice() else { return None };
        let is_alone = self.registered.get(&address) == Some(&1);
        (is_alone && !self.taken.contains(only)).then(|| (*only).to_owned())
    }
}

/// Whether a channel may be called otherwise; its old name is free then, and the new one is not.
fn takes(names: &mut BTreeSet<String>, old: &str, new: &str) -> bool {
    let (old, new) = (fold(old), fold(new));
    if old != new && names.contains(&new) {
        return false;
    }
    names.remove(&old);
    names.insert(new);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(id: &str, name: &str, port: u16) -> EngineChannel {
        EngineChannel::example(id, name, port)
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
    fn a_channel_of_which_only_the_port_is_known_yet_stays_as_it_is() {
        let mut unread = listens("a", "renamed", 6661);
        let listener = unread.listener.as_mut().unwrap();
        (listener.transport, listener.behavior, listener.address) = (String::new(), None, None);
        listener.server_mode = false;
        let known = [registered(1, "adt", 6661, Some("a")), registered(2, "oru", 6662, Some("b"))];
        let found = [unread, listens("b", "oru", 6662)];
        assert_eq!(plan(&known, &found), Plan { steps: vec![unchanged(2, "b")], proposals: vec![] });
        assert_eq!(step(&known[0], "a".into(), found.first()), None);
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
    fn a_name_that_another_channel_has_is_not_taken_over_however_it_is_written() {
        let known = [registered(1, "ADT In", 6661, Some("a")), registered(2, "Lab", 6662, Some("b"))];
        for same in ["ADT In", "adt in", "ADT  In", "ＡＤＴ In", "ADT\u{a0}In"] {
            let found = [listens("a", "ADT In", 6661), listens("b", same, 6662)];
            assert_eq!(plan(&known, &found).steps[1].name, None, "{same:?}");
        }
        // One's own in other letters is nobody else's.
        let found = [listens("a", "adt  IN", 6661), listens("b", "Lab", 6662)];
        assert_eq!(plan(&known, &found).steps[0].name.as_deref(), Some("adt  IN"));
    }

    #[test]
    fn of_two_channels_that_get_the_same_name_the_first_has_it_and_a_name_that_was_left_is_free() {
        let known = [registered(1, "a", 6661, Some("a")), registered(2, "b", 6662, Some("b"))];
        let names = |one: &str, other: &str| {
            let steps = plan(&known, &[listens("a", one, 6661), listens("b", other, 6662)]).steps;
            steps.into_iter().map(|step| step.name).collect::<Vec<_>>()
        };
        assert_eq!(names("Über", "ÜBER"), [Some("Über".to_owned()), None]);
        assert_eq!(names("c", "a"), [Some("c".to_owned()), Some("a".to_owned())]);
    }
}
