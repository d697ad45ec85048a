use gateway_proto::engine::{EngineCounts, EngineListener};

use super::*;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn channel(name: &str, port: u16, state: EngineChannelState, max_connections: u32) -> EngineChannel {
    EngineChannel {
        id: name.into(),
        name: name.into(),
        state,
        undeployed_changes: false,
        listener: Some(EngineListener {
            transport: "TCP Listener".into(),
            behavior: Some("hl7v2-mllp".into()),
            host: "0.0.0.0".into(),
            port,
            address: Some(address(port)),
            max_connections: Some(max_connections),
            tls: false,
            server_mode: true,
        }),
        destinations: Vec::new(),
        counts: EngineCounts::default(),
    }
}

fn watch_of(state: EngineState, channels: Vec<EngineChannel>) -> EngineWatch {
    changing(state, channels).1
}

/// An engine that can say something else later.
fn changing(state: EngineState, channels: Vec<EngineChannel>) -> (watch::Sender<Arc<EngineView>>, EngineWatch) {
    let (view, receiver) = watch::channel(view_of(state, channels));
    (view, EngineWatch { view: Some(receiver), nudge: Arc::default() })
}

fn view_of(state: EngineState, channels: Vec<EngineChannel>) -> Arc<EngineView> {
    Arc::new(EngineView { state, ..index(channels) })
}

/// An engine with one started listener of so many places; call the first to change the number.
pub(crate) fn listener_of(port: u16, most: u32) -> (impl Fn(u32), EngineWatch) {
    let channels = move |most| vec![channel("adt", port, EngineChannelState::Started, most)];
    let (view, watch) = changing(EngineState::Up, channels(most));
    (move |most| drop(view.send_replace(view_of(EngineState::Up, channels(most)))), watch)
}

#[test]
fn a_refusal_is_explained_by_what_the_engine_says_of_the_channel() {
    let channels = || {
        vec![channel("adt", 6661, EngineChannelState::Paused, 10), channel("oru", 6662, EngineChannelState::Started, 3)]
    };
    let up = watch_of(EngineState::Up, channels());
    let (code, words) = up.explain_refusal(address(6661)).unwrap();
    assert_eq!((code, words.as_str()), (RefusalCode::ChannelStopped, "our channel 'adt' is paused in the engine"));
    assert_eq!(up.explain_refusal(address(6662)), None, "it should listen: the refusal itself is all that is known");
    assert_eq!(up.explain_refusal(address(6663)), None, "not a port of the engine");
    let down = watch_of(EngineState::Down, channels());
    assert_eq!(down.explain_refusal(address(6661)).unwrap().0, RefusalCode::EngineDown);
    let refused = watch_of(EngineState::LoginRefused, channels());
    assert_eq!(refused.explain_refusal(address(6661)), None, "what was known is old");
    assert_eq!(EngineWatch::none().explain_refusal(address(6661)), None);
}

#[test]
fn the_limit_of_a_listener_is_the_engine_s_word() {
    let watch = watch_of(EngineState::Up, vec![channel("oru", 6662, EngineChannelState::Started, 3)]);
    assert_eq!(watch.max_connections(address(6662)), Some(3));
    assert_eq!(watch.max_connections(address(1)), None);
    assert_eq!(EngineWatch::none().max_connections(address(6662)), None);
}

#[test]
fn of_two_channels_with_one_port_the_one_that_listens_counts() {
    let watch = watch_of(
        EngineState::Up,
        vec![
            channel("old", 6661, EngineChannelState::Stopped, 1),
            channel("new", 6661, EngineChannelState::Started, 2),
        ],
    );
    assert_eq!(watch.max_connections(address(6661)), Some(2));
}
