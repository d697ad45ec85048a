use std::task::Poll;

use super::*;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn channel(name: &str, port: u16, state: EngineChannelState, max_connections: u32) -> EngineChannel {
    let mut channel = EngineChannel { state, ..EngineChannel::example(name, name, port) };
    if let Some(listener) = &mut channel.listener {
        listener.max_connections = Some(max_connections);
    }
    channel
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
    let (code, words) = down.explain_refusal(address(6661)).unwrap();
    assert_eq!(code, RefusalCode::EngineDown);
    assert!(words.contains("does not run, or the channel is stopped"), "the API alone says neither: {words}");
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

/// What a look that begins now finds.
fn fresh(channels: Vec<EngineChannel>) -> Arc<EngineView> {
    Arc::new(EngineView { state: EngineState::Up, looked_at: Some(Instant::now()), ..index(channels) })
}

/// The channel `adt` in this state, and another one started on its port.
fn taken_over(state: EngineChannelState) -> Vec<EngineChannel> {
    vec![channel("adt", 6661, state, 10), channel("internal", 6661, EngineChannelState::Started, 10)]
}

fn alone(state: EngineChannelState) -> Vec<EngineChannel> {
    vec![channel("adt", 6661, state, 10)]
}

/// What a stream waits for everything.
fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

#[tokio::test]
async fn a_stream_to_a_channel_that_is_there_goes_on_without_a_look() {
    let started = watch_of(EngineState::Up, alone(EngineChannelState::Started));
    let down = watch_of(EngineState::Down, taken_over(EngineChannelState::Stopped));
    for watch in [&started, &down, &EngineWatch::none()] {
        assert_eq!(futures_util::poll!(pin!(watch.check_owner("adt", address(6661), in_time()))), Poll::Ready(Ok(())));
        assert!(futures_util::poll!(pin!(watch.nudge.notified())).is_pending(), "nobody asked for one");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_an_old_look_contradicts_wait_for_one_fresh_look_and_go_by_it() {
    let (view, watch) = changing(EngineState::Up, taken_over(EngineChannelState::Stopped));
    let mut first = pin!(watch.check_owner("adt", address(6661), in_time()));
    let mut second = pin!(watch.check_owner("adt", address(6661), in_time()));
    assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending());
    assert!(futures_util::poll!(pin!(watch.nudge.notified())).is_ready(), "a look is asked for");
    assert!(futures_util::poll!(pin!(watch.nudge.notified())).is_pending(), "one for both");
    // One that was under way already does not count.
    view.send_replace(view_of(EngineState::Up, taken_over(EngineChannelState::Stopped)));
    assert!(futures_util::poll!(&mut first).is_pending());
    view.send_replace(fresh(alone(EngineChannelState::Started)));
    assert_eq!((first.await, second.await), (Ok(()), Ok(())), "it was started again");

    view.send_replace(fresh(taken_over(EngineChannelState::Stopped)));
    tokio::time::advance(Duration::from_millis(1)).await;
    let mut third = pin!(watch.check_owner("adt", address(6661), in_time()));
    assert!(futures_util::poll!(&mut third).is_pending());
    view.send_replace(fresh(taken_over(EngineChannelState::Stopped)));
    let refused = third.await.unwrap_err().to_string();
    assert!(refused.contains("'adt' is stopped") && refused.contains("'internal'"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_does_not_come_in_time_leaves_the_last_word_to_the_old_one() {
    let (_view, watch) = changing(EngineState::Up, taken_over(EngineChannelState::Stopped));
    let begun = Instant::now();
    assert!(watch.check_owner("adt", address(6661), in_time()).await.is_err());
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(3), "{waited:?}");
    let (begun, soon) = (Instant::now(), Duration::from_millis(1_500));
    assert!(watch.check_owner("adt", address(6661), begun + soon).await.is_err());
    assert_eq!(begun.elapsed(), soon, "a stream has no more time than it may wait in all");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_may_not_wait_for_a_place_is_judged_by_a_fresh_look_all_the_same() {
    let (view, watch) = changing(EngineState::Up, taken_over(EngineChannelState::Stopped));
    let looking = async {
        sleep(Duration::from_millis(300)).await;
        view.send_replace(fresh(alone(EngineChannelState::Started)));
    };
    let (checked, ()) = tokio::join!(watch.check_owner("adt", address(6661), Instant::now()), looking);
    assert_eq!(checked, Ok(()), "it was changed back between two looks");

    view.send_replace(fresh(taken_over(EngineChannelState::Stopped)));
    tokio::time::advance(Duration::from_millis(1)).await;
    let begun = Instant::now();
    assert!(watch.check_owner("adt", address(6661), begun).await.is_err());
    assert_eq!(begun.elapsed(), Duration::from_secs(1), "and no longer than that");
}

#[tokio::test(start_paused = true)]
async fn what_a_refusal_was_for_is_not_forgotten_when_the_engines_api_fails() {
    let (view, watch) = changing(EngineState::Up, taken_over(EngineChannelState::Stopped));
    let seen = EngineView {
        seen_at: Some(Instant::now()),
        ..EngineView::clone(&fresh(taken_over(EngineChannelState::Stopped)))
    };
    for state in [EngineState::Down, EngineState::NotUnderstood] {
        view.send_replace(Arc::new(EngineView { state, ..seen.clone() }));
        assert!(watch.check_owner("adt", address(6661), in_time()).await.is_err());
    }
}
