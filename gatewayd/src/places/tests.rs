use gateway_proto::{
    id::{ConnectionId, OrganizationId, ServerId},
    identity::GatewayKey,
    limits::ChannelLimits,
    policy::{Activation, AdminScope, ConnectionEntry, ConnectionKind, LocalEnd, Policy, ServerName},
};

use super::*;
use crate::engine::tests::listener_of;

const LONG: Duration = Duration::from_secs(60);

fn engine() -> SocketAddr {
    ([127, 0, 0, 1], 6661).into()
}

fn peer(seed: u8) -> GatewayPublicKey {
    GatewayKey::from_seed(&[seed; 32]).public()
}

/// Places of listeners that no policy speaks of.
fn places_of(configured: u32, engine: EngineWatch) -> EnginePlaces {
    EnginePlaces::new(configured, engine, watch::channel(Arc::default()).1)
}

async fn take(places: &EnginePlaces, number: u8, hold: Duration) -> Result<Place, ListenerFull> {
    places.take(engine(), peer(number), deadline(hold), |_| ()).await
}

/// A policy in which so many peers may send to the listener.
fn granted_to(peers: u8) -> Arc<PolicyView> {
    let server = ServerName {
        id: ServerId::new(1, [0; 10]),
        name: "server".into(),
        organization: OrganizationId::new(1, [0; 10]),
        organization_name: "organization".into(),
    };
    let entry = |number: u8| ConnectionEntry {
        id: ConnectionId::new(1, [number; 10]),
        kind: ConnectionKind::P2p,
        activation: Activation::Active,
        peer: peer(number),
        local: LocalEnd::Listener { engine: engine(), engine_channel: None },
        endpoint: "ADT".into(),
        behavior: "hl7v2-mllp".into(),
        admin: AdminScope::default(),
        people: vec![],
        secrets: vec![],
        expires_at: None,
        staleness_secs: 100,
        max_streams: 64,
        limits: ChannelLimits::default(),
        require_post_quantum: false,
    };
    let policy = Policy {
        gateway: peer(0),
        revision: 1,
        issued_at: 1,
        server,
        control_keys: vec![],
        relays: vec![],
        peers: vec![],
        connections: (1..=peers).map(|number| Arc::new(entry(number))).collect(),
    };
    Arc::new(PolicyView::new(Arc::new(policy), 1))
}

#[tokio::test]
async fn what_is_kept_for_partners_is_free_for_the_one_that_waits_as_soon_as_the_policy_drops_them() {
    let (policy, follows) = watch::channel(granted_to(11));
    let places = EnginePlaces::new(10, EngineWatch::none(), follows);
    let stop = CancellationToken::new();
    let mut following = tokio::task::JoinSet::new();
    following.spawn(places.clone().follow(stop.clone()));
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(take(&places, 1, LONG).await.unwrap());
    }
    let half = NoPlace::new(5, 10);
    assert_eq!(take(&places, 1, Duration::ZERO).await.err(), Some(ListenerFull(half)));
    let told = std::cell::Cell::new(None);
    let sixth = places.take(engine(), peer(1), deadline(LONG), |why| told.set(Some(why)));
    let mut sixth = std::pin::pin!(sixth);
    assert!(futures_util::poll!(&mut sixth).is_pending());
    assert_eq!(told.get(), Some(half), "what it waits for");
    policy.send_replace(granted_to(1));
    taken.push(tokio::time::timeout(LONG, sixth).await.expect("nobody else comes any more").unwrap());
    stop.cancel();
    following.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn the_eleventh_waits_for_a_place_and_gets_it() {
    let places = places_of(10, EngineWatch::none());
    let mut taken = Vec::new();
    for _ in 0..10 {
        taken.push(take(&places, 1, LONG).await.unwrap());
    }
    let mut eleventh = std::pin::pin!(take(&places, 2, LONG));
    assert!(futures_util::poll!(&mut eleventh).is_pending());
    taken.pop();
    assert!(eleventh.await.unwrap().was_waited_for);
    taken.clear();
    assert!(places.lock().is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn who_waits_in_vain_is_refused_after_the_hold() {
    let places = places_of(1, EngineWatch::none());
    let _first = take(&places, 1, LONG).await.unwrap();
    let hold = Duration::from_millis(50);
    let begun = Instant::now();
    let refused = take(&places, 2, hold).await;
    assert_eq!(refused.err(), Some(ListenerFull(NoPlace::new(1, 1))));
    assert!(begun.elapsed() >= hold);
}

#[tokio::test]
async fn who_goes_away_while_waiting_or_just_as_it_gets_a_place_takes_none() {
    let places = places_of(1, EngineWatch::none());
    let first = take(&places, 1, LONG).await.unwrap();
    {
        let mut gone = std::pin::pin!(take(&places, 2, LONG));
        assert!(futures_util::poll!(&mut gone).is_pending());
    }
    {
        let mut granted = std::pin::pin!(take(&places, 2, LONG));
        assert!(futures_util::poll!(&mut granted).is_pending());
        drop(first);
    }
    assert!(!take(&places, 3, LONG).await.unwrap().was_waited_for);
    assert!(places.lock().is_empty());
}

#[tokio::test]
async fn the_engine_s_own_number_wins_and_its_change_is_followed() {
    let (say, engine_says) = listener_of(6661, 3);
    let places = places_of(10, engine_says);
    let stop = CancellationToken::new();
    let mut following = tokio::task::JoinSet::new();
    following.spawn(places.clone().follow(stop.clone()));
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(take(&places, 1, LONG).await.unwrap());
    }
    let refused = take(&places, 1, Duration::ZERO).await;
    assert_eq!(refused.err(), Some(ListenerFull(NoPlace::new(3, 3))));
    let mut fourth = std::pin::pin!(take(&places, 2, LONG));
    assert!(futures_util::poll!(&mut fourth).is_pending());
    let status = PlacesStatus { most: Some(3), told_by: PlacesToldBy::Engine, taken: 3, waiting: 1 };
    assert_eq!(places.status(engine()), status);
    say(4);
    taken.push(fourth.await.unwrap());
    // Fewer: nobody is ended, and nobody enters until as many have left.
    say(2);
    taken.truncate(2);
    let wait = take(&places, 2, LONG);
    let mut wait = std::pin::pin!(wait);
    assert!(futures_util::poll!(&mut wait).is_pending());
    taken.pop();
    wait.await.unwrap();
    // No limit at all.
    say(0);
    let unlimited = PlacesStatus { most: None, told_by: PlacesToldBy::Engine, taken: 1, waiting: 0 };
    assert_eq!(places.status(engine()), unlimited);
    taken.clear();
    for _ in 0..50 {
        taken.push(take(&places, 1, LONG).await.unwrap());
    }
    // What the engine does not know of is as configured.
    let other = ([127, 0, 0, 1], 1).into();
    assert_eq!((places.most(other), places.is_known(other)), (10, false));
    stop.cancel();
    following.join_next().await.unwrap().unwrap();
}
