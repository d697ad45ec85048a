use serde_json::json;

use super::*;
use crate::engine::discovery::Discovery;

const OURS: &str = "a0000000-02";
const OTHER: &str = "a0000000-13";

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn channel(id: &str, name: &str, port: u16, state: EngineChannelState) -> EngineChannel {
    EngineChannel { state, ..EngineChannel::example(id, name, port) }
}

fn ours(state: EngineChannelState) -> EngineChannel {
    channel(OURS, "adt", 6661, state)
}

fn other(state: EngineChannelState) -> EngineChannel {
    channel(OTHER, "internal", 6661, state)
}

fn with_listener(mut channel: EngineChannel, change: impl FnOnce(&mut EngineListener)) -> EngineChannel {
    change(channel.listener.as_mut().unwrap());
    channel
}

fn without_details(channel: EngineChannel) -> EngineChannel {
    with_listener(channel, |listener| {
        listener.transport.clear();
        (listener.address, listener.server_mode) = (None, false);
    })
}

fn changed(channel: EngineChannel) -> EngineChannel {
    EngineChannel { undeployed_changes: true, ..channel }
}

/// The decision on a look that is the last, and that the one before it would have been looked at again.
fn decide(channels: &[EngineChannel], left_out: usize) -> Decision {
    let ports = PortBook::new(channels);
    let last = Look { state: EngineState::Up, age: None, channels, ports: &ports, left_out, is_last: true };
    let decision = last.decide(OURS, at(6661));
    let before = Look { is_last: false, ..last }.decide(OURS, at(6661));
    match &decision {
        Decision::GoOn => assert_eq!(before, Decision::GoOn, "what agrees costs no look"),
        Decision::Refuse(_) => assert_eq!(before, Decision::LookAgain, "an old look refuses nothing"),
        Decision::LookAgain => panic!("there is no newer look"),
    }
    decision
}

fn refusal(channels: &[EngineChannel]) -> String {
    let Decision::Refuse(not_ours) = decide(channels, 0) else { panic!("it is not refused") };
    not_ours.to_string()
}

#[test]
fn a_started_channel_on_its_port_is_gone_on_with_whoever_else_is_stopped_there() {
    use EngineChannelState::{Changing, Paused, Started, Stopped, Undeployed};
    assert_eq!(decide(&[ours(Started)], 0), Decision::GoOn);
    for state in [Stopped, Paused, Undeployed, Changing] {
        assert_eq!(decide(&[ours(Started), other(state)], 0), Decision::GoOn, "{state}");
    }
    let elsewhere = channel(OTHER, "internal", 6662, Started);
    assert_eq!(decide(&[ours(Started), elsewhere], 0), Decision::GoOn);
}

#[test]
fn a_channel_that_is_not_started_is_refused_with_its_state() {
    use EngineChannelState::{Paused, Stopped, Undeployed};
    for (state, word) in [(Stopped, "stopped"), (Paused, "paused"), (Undeployed, "not deployed")] {
        assert_eq!(refusal(&[ours(state)]), format!("our channel 'adt' is {word} in the engine"));
    }
    assert_eq!(decide(&[ours(EngineChannelState::Changing)], 0), Decision::GoOn, "on its way, and nobody else is");
}

#[test]
fn another_channel_on_the_port_of_a_stopped_one_is_named() {
    use EngineChannelState::{Changing, Started, Stopped};
    for state in [Started, Changing] {
        let said = refusal(&[ours(Stopped), other(state)]);
        let expected =
            "our channel 'adt' is stopped in the engine; the port 6661 belongs to the channel 'internal' in the engine";
        assert_eq!(said, expected, "{state}");
    }
}

#[test]
fn a_deleted_channel_is_refused_and_its_successor_on_the_port_gets_nothing() {
    let said = refusal(&[]);
    assert!(said.contains(OURS) && said.contains("--engine-channel"), "{said}");
    let said = refusal(&[other(EngineChannelState::Started)]);
    assert!(said.contains("any more") && said.ends_with("belongs to the channel 'internal' in the engine"), "{said}");
}

#[test]
fn a_channel_that_is_moving_or_moved_is_refused_while_another_one_may_have_its_port() {
    use EngineChannelState::{Changing, Started};
    let moved = || channel(OURS, "adt", 7001, Started);
    assert_eq!(decide(&[moved()], 0), Decision::GoOn, "the policy follows; whoever dials sees a closed port");
    assert!(refusal(&[moved(), other(Started)]).contains("'internal'"));
    assert!(refusal(&[moved(), other(Changing)]).contains("'internal'"));
    assert!(refusal(&[ours(Changing), other(Started)]).contains("'internal'"));
    let host_is_a_name = |channel| with_listener(channel, |listener| listener.address = None);
    assert!(refusal(&[moved(), host_is_a_name(other(Started))]).contains("'internal'"), "it cannot be told apart");
    assert_eq!(decide(&[ours(Started), host_is_a_name(other(Started))], 0), Decision::GoOn, "ours is there");
    let client = with_listener(other(Started), |listener| listener.server_mode = false);
    assert_eq!(decide(&[moved(), client], 0), Decision::GoOn, "a client listens on no port");
}

#[test]
fn of_several_channels_that_want_the_port_only_what_runs_counts() {
    use EngineChannelState::{Started, Stopped};
    let third = |state| channel("a0000000-20", "third", 6661, state);
    assert_eq!(decide(&[ours(Started), other(Stopped), third(Stopped)], 0), Decision::GoOn);
    assert!(refusal(&[ours(Stopped), other(Stopped), third(Started)]).contains("'third'"));
    // Saved, and not deployed: it still listens where it was.
    assert_eq!(decide(&[ours(Started), changed(other(Started))], 0), Decision::GoOn);
    assert!(refusal(&[changed(ours(Started)), other(Started)]).contains("'internal'"), "ours runs somewhere else");
    assert!(refusal(&[changed(ours(Started)), changed(other(Started))]).contains("'internal'"), "nobody can tell");
    assert!(refusal(&[ours(Started), other(Started)]).contains("may not be the one"), "nobody can tell");
    assert_eq!(decide(&[changed(ours(Started))], 0), Decision::GoOn);
}

#[test]
fn a_channel_that_connects_out_now_is_refused_once_that_is_deployed() {
    let client = || with_listener(ours(EngineChannelState::Started), |listener| listener.server_mode = false);
    assert_eq!(refusal(&[client()]), "our channel 'adt' connects out in the engine now and listens nowhere");
    assert_eq!(decide(&[changed(client())], 0), Decision::GoOn);
}

#[test]
fn a_port_or_details_that_are_not_known_refuse_nothing_unless_another_channel_is_there() {
    use EngineChannelState::Started;
    // `${port}` without a value is in no answer.
    let no_port = EngineChannel { listener: None, ..ours(Started) };
    assert_eq!(decide(std::slice::from_ref(&no_port), 0), Decision::GoOn);
    assert!(refusal(&[no_port, other(Started)]).contains("'internal'"));
    assert_eq!(decide(&[without_details(ours(Started))], 0), Decision::GoOn);
    assert!(refusal(&[without_details(ours(Started)), without_details(other(Started))]).contains("'internal'"));
    let unknown_port = EngineChannel { listener: None, ..other(Started) };
    assert_eq!(decide(&[ours(Started), unknown_port], 0), Decision::GoOn);
}

#[test]
fn a_channel_beyond_the_limit_is_not_taken_for_deleted() {
    assert_eq!(decide(&[], 3), Decision::GoOn);
    let Decision::Refuse(not_ours) = decide(&[other(EngineChannelState::Started)], 3) else { panic!("another's port") };
    assert_eq!(not_ours.ours, OurChannel::InDoubt { name: OURS.into() });
}

#[test]
fn an_engine_that_cannot_be_asked_contradicts_nothing_but_that_another_channel_had_the_port_a_while_ago() {
    let decide = |channels: &[EngineChannel], state, age| {
        let ports = PortBook::new(channels);
        Look { state, age, channels, ports: &ports, left_out: 0, is_last: true }.decide(OURS, at(6661))
    };
    let taken = [ours(EngineChannelState::Stopped), other(EngineChannelState::Started)];
    let lately = Some(REMEMBERED - Duration::from_secs(1));
    for state in [EngineState::Unknown, EngineState::Down, EngineState::LoginRefused, EngineState::NotUnderstood] {
        for age in [None, Some(REMEMBERED)] {
            assert_eq!(decide(&taken, state, age), Decision::GoOn, "{state}");
        }
        assert!(matches!(decide(&taken, state, lately), Decision::Refuse(_)), "{state}");
        assert_eq!(decide(&taken[..1], state, lately), Decision::GoOn, "only stopped: whoever dials sees that");
        let gone = [other(EngineChannelState::Started)];
        assert!(matches!(decide(&gone, state, lately), Decision::Refuse(_)), "{state}");
    }
}

#[test]
fn the_only_channel_of_an_engine_is_found_in_answers_whose_lists_became_their_element() {
    let answer = |value: serde_json::Value| value.to_string().into_bytes();
    let names = answer(json!({ "map": { "entry": { "string": [OURS, 15] } } }));
    let ports = answer(json!({ "list": { "x.Ports": { "id": OURS, "name": "15", "port": "6661" } } }));
    let details = answer(json!({ "list": { "channel": { "id": OURS, "sourceConnector": {
        "transportName": "TCP Listener", "properties": {
            "listenerConnectorProperties": { "host": "0.0.0.0" },
            "transmissionModeProperties": { "pluginPointName": "MLLP" } } } } } }));
    let seen = |state: &str| {
        let mut discovery = Discovery::new([127, 0, 0, 1].into());
        let statuses = answer(json!({ "list": { "dashboardStatus": { "channelId": OURS, "state": state } } }));
        assert_eq!(discovery.overview(&names, &ports, &statuses).unwrap(), [[OURS]]);
        discovery.details(&details).unwrap();
        discovery.channels()
    };
    assert_eq!(decide(&seen("STARTED"), 0), Decision::GoOn);
    assert_eq!(refusal(&seen("STOPPED")), "our channel '15' is stopped in the engine");
}
