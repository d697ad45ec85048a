//! Two processes with one key, as after the copy of a machine: the one that was there first keeps its place, and everybody is told.

use std::time::Duration;

use gateway_proto::{
    api::{
        gateway::{WatchEvent, WatchRequest},
        platform::{AuditEntry, Server},
    },
    twice::{Instance, RETURN_SECS, RunsTwice},
};

use super::harness::{Control, Org, Pair, Watch};

const ORIGINAL: Instance = Instance::from_random([1; 16]);
const COPY: Instance = Instance::from_random([2; 16]);
const RESTARTED: Instance = Instance::from_random([3; 16]);
const LIMIT: Duration = Duration::from_secs(20);

/// What a watch is told of another process; none: it was closed before.
async fn told(watch: &mut Watch) -> Option<RunsTwice> {
    let told = async {
        loop {
            match watch.event().await? {
                WatchEvent::RunsTwice(told) => return Some(told),
                WatchEvent::Heartbeat { .. } => watch.send(&WatchRequest::Heartbeat).await,
                WatchEvent::Policy { .. }
                | WatchEvent::Delta { .. }
                | WatchEvent::RelayToken { .. }
                | WatchEvent::Succession { .. }
                | WatchEvent::AuditHead { .. }
                | WatchEvent::Removed => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("nothing was told")
}

/// A process tries to watch; none: it is let in.
async fn refused(pair: &Pair<'_>, control: &Control, instance: Instance) -> Option<RunsTwice> {
    let mut watch = pair.hospital_gateway.watch_as(control, instance).await;
    let event = watch.event().await.expect("neither let in nor told why");
    // One that is let in is told of the other.
    let WatchEvent::RunsTwice(told) = event else { return None };
    if !told.is_second {
        return None;
    }
    assert_eq!(watch.event().await, None, "and closed");
    Some(told)
}

/// The same again and again, while time passes, until it is let in.
async fn enters_late(pair: &Pair<'_>, control: &Control, instance: Instance) -> Watch {
    let enters = async {
        loop {
            control.clock.advance(Duration::from_secs(RETURN_SECS));
            let mut watch = pair.hospital_gateway.watch_as(control, instance).await;
            if !matches!(watch.event().await, Some(WatchEvent::RunsTwice(told)) if told.is_second) {
                return watch;
            }
        }
    };
    tokio::time::timeout(LIMIT, enters).await.expect("never let in")
}

async fn server(org: &Org<'_>, pair: &Pair<'_>) -> Server {
    org.get(&format!("/servers/{}", pair.hospital_server.id)).await
}

/// Until nobody watches any more.
async fn gone(pair: &Pair<'_>) {
    let gone = async {
        while server(&pair.hospital, pair).await.online {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("still shown as watching");
}

#[tokio::test]
async fn a_copy_of_a_gateway_that_lives_is_refused_and_both_and_their_people_are_told() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut original = pair.hospital_gateway.watch_as(&control, ORIGINAL).await.greeted().await;
    let here = Some("127.0.0.1".to_owned());
    for _ in 0..2 {
        let (first, second) = tokio::join!(told(&mut original), refused(&pair, &control, COPY));
        assert_eq!(second.expect("let in").address, here);
        let first = first.expect("the original was closed");
        assert!(!first.is_second && first.address == here, "{first:?}");
        // Told again only when it is seen again.
        control.clock.advance(Duration::from_secs(1));
    }
    let twice = server(&pair.hospital, &pair).await.runs_twice.expect("no flag");
    assert_eq!((twice.address, twice.other_address), (here.clone(), here));
    assert!(pair.hospital.list::<Server>("/servers").await[0].runs_twice.is_some());
    let log: Vec<AuditEntry> = pair.hospital.list("/audit?act=gateway.runs_twice").await;
    assert_eq!(log.len(), 1, "once, however often it tries");
    assert!(log[0].detail.contains("127.0.0.1"), "{}", log[0].detail);
    assert!(pair.lab.list::<AuditEntry>("/audit?act=gateway.runs_twice").await.is_empty());
    control.clock.advance(Duration::from_secs(3_700));
    assert_eq!(server(&pair.hospital, &pair).await.runs_twice, None, "it is over after an hour");
}

#[tokio::test]
async fn a_restart_wins_over_a_copy_that_stands_by_and_a_place_that_stays_empty_is_the_copys() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut original = pair.hospital_gateway.watch_as(&control, ORIGINAL).await.greeted().await;
    let (_, second) = tokio::join!(told(&mut original), refused(&pair, &control, COPY));
    assert!(second.is_some());
    drop(original);
    gone(&pair).await;
    assert!(refused(&pair, &control, COPY).await.is_some(), "it was only quicker");
    let restarted = pair.hospital_gateway.watch_as(&control, RESTARTED).await.greeted().await;
    drop(restarted);
    gone(&pair).await;
    let mut copy = enters_late(&pair, &control, COPY).await;
    // It answers, and gives way all the same.
    let (copy_told, back) = tokio::join!(told(&mut copy), refused(&pair, &control, Instance::from_random([4; 16])));
    assert_eq!((copy_told, back), (None, None));
}

#[tokio::test]
async fn a_restart_whose_former_link_is_dead_and_a_gateway_that_roams_do_not_run_twice() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut first = pair.hospital_gateway.watch_as(&control, ORIGINAL).await.greeted().await;
    assert_eq!(refused(&pair, &control, ORIGINAL).await, None);
    while first.event().await.is_some() {}
    // Nobody reads what comes over it.
    let _mute = pair.hospital_gateway.watch_as(&control, ORIGINAL).await.greeted().await;
    assert_eq!(refused(&pair, &control, RESTARTED).await, None);
    assert_eq!(server(&pair.hospital, &pair).await.runs_twice, None);
}

#[tokio::test]
async fn an_old_gateway_that_does_not_say_which_process_it_is_goes_on_as_it_did() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let mut old = pair.hospital_gateway.watch(&control).await.greeted().await;
    assert_eq!(refused(&pair, &control, ORIGINAL).await, None, "it was replaced by a newer version");
    while old.event().await.is_some() {}
    gone(&pair).await;
    let _old = pair.hospital_gateway.watch(&control).await.greeted().await;
    assert_eq!(server(&pair.hospital, &pair).await.runs_twice, None);
}

#[tokio::test]
async fn at_two_replicas_it_settles_with_the_one_that_was_there_first() {
    let one = Control::start().await;
    let Some(other) = one.replica().await else { return };
    let pair = one.pair().await;
    let mut original = pair.hospital_gateway.watch_as(&one, ORIGINAL).await.greeted().await;
    // Nobody can be asked there: it gets the place for a moment.
    let mut copy = pair.hospital_gateway.watch_as(&other, COPY).await.greeted().await;
    while original.event().await.is_some() {}
    let mut original = pair.hospital_gateway.watch_as(&one, ORIGINAL).await.greeted().await;
    while copy.event().await.is_some() {}
    for control in [&other, &one, &other] {
        let (first, second) = tokio::join!(told(&mut original), refused(&pair, control, COPY));
        assert!(second.is_some() && first.is_some_and(|told| !told.is_second));
        one.clock.advance(Duration::from_secs(1));
        other.clock.advance(Duration::from_secs(1));
    }
    assert!(server(&pair.hospital, &pair).await.runs_twice.is_some());
}
