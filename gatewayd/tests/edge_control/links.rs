//! The link: policies that come over it, how it ends, and how the next one is made.

use std::time::{Duration, Instant};

use gateway_proto::{
    api::{
        gateway::{WatchEvent, WatchRequest},
        refusal::{GatewayRefusal, RefusalReason},
    },
    identity::GatewayKey,
    policy::{DeniedReason, Policy},
    twice::RunsTwice,
};

use crate::{Gateway, linked, open_again, stand_in::connection, within};

#[tokio::test]
async fn a_new_policy_is_put_into_force_acknowledged_and_confirmed_by_heartbeats() {
    let (_directory, mut control, mut gateway) = linked().await;
    gateway.status(|status| status.connected && status.clock_skew_ms.is_some()).await;
    let key = gateway.authority.gateway_key().public();
    control.beats(Some(2));
    control.send_policy(&control.policy(key, 2));
    assert_eq!(control.heard_applied().await, 2);
    assert_eq!(gateway.authority.view().revision(), 2);

    let mut views = gateway.authority.subscribe();
    views.mark_unchanged();
    within(views.changed()).await.unwrap();
    let view = views.borrow().clone();
    assert!(view.revision() == 2 && view.problem.is_none());
    control.heard(|request| (request == WatchRequest::Heartbeat).then_some(())).await;
    gateway.stop().await;
}

#[tokio::test]
async fn forged_older_and_foreign_policies_are_reported_and_change_nothing() {
    let (_directory, mut control, gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    let stranger = GatewayKey::from_seed(&[99; 32]);

    control.send_policy_signed_by(&control.policy(key, 7), &stranger);
    let (revision, reason) = control.heard_rejected().await;
    assert!(revision == 7 && reason.contains("not trusted"), "{reason}");

    control.send_policy(&control.policy(key, 0));
    let (revision, reason) = control.heard_rejected().await;
    assert!(revision == 0 && reason.contains("revisions never go back"), "{reason}");

    control.send_policy(&control.policy(stranger.public(), 8));
    let (revision, reason) = control.heard_rejected().await;
    assert!(revision == 8 && reason.contains("not for this one"), "{reason}");

    let view = gateway.authority.view();
    assert_eq!(view.revision(), 1);
    assert!(view.problem.is_some());
    assert_eq!(control.links(), 1, "a refused policy is no reason to connect again");
}

#[tokio::test]
async fn what_changes_in_a_policy_gives_the_next_one_also_after_a_restart_and_on_a_disk_that_takes_nothing() {
    let (directory, mut control, gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    control.send(WatchEvent::Delta { delta: control.delta(key, 1, 2) });
    assert_eq!(control.heard_applied().await, 2);
    gateway.stop().await;
    let gateway = Gateway::start(open_again(directory.path()).await);
    assert_eq!(control.heard_deltas().await, (2, true));
    let file = directory.path().join("policy.json");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("full")).unwrap();
    // The first is not saved, and the second is made from it.
    control.send_policy(&control.policy(key, 3));
    assert_eq!(control.heard_rejected().await.0, 3);
    control.send(WatchEvent::Delta { delta: control.delta(key, 3, 4) });
    assert_eq!(control.heard_rejected().await.0, 4);
    assert_eq!(gateway.authority.view().revision(), 4);
    std::fs::remove_dir_all(&file).unwrap();
    control.beats(Some(4));
    assert_eq!(control.heard_applied().await, 4);
}

#[tokio::test]
async fn a_change_that_gives_no_policy_is_no_refused_policy_and_the_whole_one_is_asked_for() {
    let (_directory, mut control, mut gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    let mut forged = control.delta(key, 1, 2);
    forged.edits[0].insert = forged.edits[0].insert.replace("organization", "hospital");
    let other_base = control.delta(key, 2, 3);
    for bad in [forged, other_base] {
        control.send(WatchEvent::Delta { delta: bad });
        assert_eq!(control.heard_deltas().await, (1, false), "it asks for whole ones");
        gateway.status(|status| status.connected).await;
        control.sends_away("before the policy");
        assert_eq!(control.heard_deltas().await, (1, false), "until it has one");
        gateway.status(|status| status.connected).await;
        assert_eq!(gateway.authority.view().revision(), 1);
    }
    control.send_policy(&control.policy(key, 2));
    assert_eq!(control.heard_applied().await, 2);
    control.sends_away("once more");
    assert_eq!(control.heard_deltas().await, (2, true), "one bad change is not for ever");
    gateway.status(|status| status.connected).await;
    control.send(WatchEvent::Delta { delta: control.delta(key, 2, 3) });
    assert_eq!(control.heard_applied().await, 3);
}

#[tokio::test]
async fn a_policy_that_the_disk_does_not_take_is_told_as_one_in_force_and_as_applied_when_it_is_saved() {
    let (directory, mut control, gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    let told = |request: WatchRequest| match request {
        WatchRequest::Rejected { revision, in_force, .. } => Some((revision, in_force)),
        WatchRequest::Applied { revision } => panic!("applied {revision}"),
        WatchRequest::Hello { .. } | WatchRequest::Heartbeat | WatchRequest::Report(_) => None,
    };
    // A directory in the place of the file makes every write of it fail, also for root.
    let file = directory.path().join("policy.json");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("full")).unwrap();
    control.send_policy(&control.policy(key, 2));
    assert_eq!(control.heard(told).await, (2, true));
    assert_eq!(gateway.authority.view().revision(), 2);
    control.send_policy(&control.policy(GatewayKey::from_seed(&[99; 32]).public(), 3));
    assert_eq!(control.heard(told).await, (3, false), "a refused one is not in force");
    std::fs::remove_dir_all(&file).unwrap();
    control.beats(Some(2));
    assert_eq!(control.heard_applied().await, 2);
}

#[tokio::test]
async fn silence_ends_the_link_and_a_new_one_is_made() {
    let (_directory, mut control, mut gateway) = linked().await;
    gateway.status(|status| status.connected).await;
    control.beats(None);
    gateway.status(|status| !status.connected && status.problem.as_ref().is_some_and(|p| p.contains("silent"))).await;
    control.beats(Some(1));
    assert_eq!(control.heard_hello().await, 1);
    gateway.status(|status| status.connected && status.problem.is_none()).await;
}

#[tokio::test]
async fn a_policy_that_is_spoken_of_but_never_comes_is_asked_for_by_a_new_link() {
    let (_directory, mut control, mut gateway) = linked().await;
    control.beats(Some(5));
    let missing = |problem: &String| problem.contains("revision 5 but did not send it");
    gateway.status(|status| status.problem.as_ref().is_some_and(missing)).await;
    assert_eq!(control.heard_hello().await, 1);
    assert_eq!(gateway.authority.view().revision(), 1);
}

#[tokio::test]
async fn a_restart_without_the_control_plane_runs_from_disk() {
    let (directory, control, gateway) = linked().await;
    gateway.stop().await;
    drop(control);
    let mut gateway = Gateway::start(open_again(directory.path()).await);
    gateway.status(|status| status.problem.as_ref().is_some_and(|p| p.contains("cannot connect"))).await;
    let authority = &gateway.authority;
    assert!(authority.authorize(connection(), true, authority.now()).is_ok());
}

#[tokio::test]
async fn a_policy_that_was_signed_while_the_control_planes_clock_was_ahead_locks_nobody_out() {
    let (directory, mut control, gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    let ahead = Policy { issued_at: gateway_net::time::unix_secs() + 7_200, ..control.policy(key, 2) };
    control.send_policy(&ahead);
    assert_eq!(control.heard_applied().await, 2);
    gateway.stop().await;
    let gateway = Gateway::start(open_again(directory.path()).await);
    assert!(gateway.authority.now() >= ahead.issued_at, "what ends is still decided by it");
    assert_eq!(control.heard_hello().await, 2);
}

#[tokio::test]
async fn a_gateway_whose_clock_was_set_back_links_by_the_time_it_heard_last() {
    let (directory, mut control, gateway) = linked().await;
    // As if this machine's clock were behind: the control plane's is two hours ahead of it.
    control.ahead(7_200);
    let key = gateway.authority.gateway_key().public();
    let now = gateway_net::time::unix_secs() + 7_200;
    control.send_policy(&Policy { issued_at: now, ..control.policy(key, 2) });
    assert_eq!(control.heard_applied().await, 2);
    gateway.stop().await;
    let _gateway = Gateway::start(open_again(directory.path()).await);
    assert_eq!(control.heard_hello().await, 2);
}

#[tokio::test]
async fn a_gateway_that_is_not_let_in_says_why() {
    let (_directory, mut control, mut gateway) = linked().await;
    let refusals = [
        (RefusalReason::PolicyKey, "does not know the policy key"),
        (RefusalReason::NotEnrolled, "knows no gateway with our key"),
        (RefusalReason::Clock, "the control plane's 1234 (Unix seconds)"),
    ];
    for (reason, words) in refusals {
        control.refuses(Some(GatewayRefusal { reason, now: 1234 }));
        control.sends_away("the disk of its database is full");
        gateway.status(|status| status.problem.as_ref().is_some_and(|problem| problem.contains(words))).await;
    }
    control.refuses(None);
    gateway.status(|status| status.connected).await;
    assert_eq!(control.heard_hello().await, 1);
}

#[tokio::test]
async fn whatever_time_was_sent_the_clock_that_a_refusal_is_told_with_is_the_machines() {
    let (directory, mut control, gateway) = linked().await;
    let ahead = gateway_net::time::unix_secs() + 7_200;
    let key = gateway.authority.gateway_key().public();
    control.send_policy(&Policy { issued_at: ahead, ..control.policy(key, 2) });
    assert_eq!(control.heard_applied().await, 2);
    gateway.stop().await;
    control.refuses(Some(GatewayRefusal { reason: RefusalReason::Clock, now: 1234 }));
    let mut gateway = Gateway::start(open_again(directory.path()).await);
    gateway.status(|status| status.problem.is_some()).await;
    // Every other attempt sends what was remembered instead.
    for _ in 0..6 {
        within(gateway.status.changed()).await.unwrap();
        let problem = gateway.status.borrow_and_update().problem.clone().unwrap();
        let (_, told) = problem.split_once("ours says ").unwrap();
        let told: u64 = told.split_once(',').unwrap().0.parse().unwrap();
        assert!(told <= gateway_net::time::unix_secs() && told + 60 > gateway_net::time::unix_secs(), "{problem}");
        assert!(problem.contains("has said") && problem.contains("the control plane's 1234"), "{problem}");
    }
}

#[tokio::test]
async fn the_words_with_which_a_link_is_closed_are_shown() {
    let (_directory, control, mut gateway) = linked().await;
    control.sends_away("the disk of its database is full");
    let words = "closed the link: the disk of its database is full";
    gateway.status(|status| status.problem.as_ref().is_some_and(|problem| problem.contains(words))).await;
}

#[tokio::test]
async fn a_removed_gateway_allows_nothing() {
    let (directory, control, mut gateway) = linked().await;
    control.send(WatchEvent::Removed);
    gateway.status(|status| status.problem.as_ref().is_some_and(|p| p.contains("removed this gateway"))).await;
    let denied = gateway.authority.authorize(connection(), true, gateway.authority.now());
    assert_eq!(denied, Err(DeniedReason::Unknown));
    assert!(directory.path().join("policy.json").exists());
}

fn told(is_second: bool) -> WatchEvent {
    WatchEvent::RunsTwice(RunsTwice { is_second, since: 1, at: 2, address: Some("192.0.2.7".into()) })
}

#[tokio::test]
async fn a_second_process_carries_nothing_says_so_and_goes_on_as_soon_as_it_is_let_in() {
    let (_directory, mut control, mut gateway) = linked().await;
    let mut views = gateway.authority.subscribe();
    assert!(views.borrow_and_update().authorize(connection(), true, gateway.authority.now()).is_ok());
    control.send(told(true));
    let view = within(views.wait_for(|view| !view.takes_part())).await.unwrap().clone();
    assert_eq!(view.authorize(connection(), true, gateway.authority.now()), Err(DeniedReason::StandsBy));
    assert!(view.policy.is_some(), "it knows what it would carry");
    gateway.status(|status| status.problem.as_ref().is_some_and(|problem| problem.contains("192.0.2.7"))).await;
    // It asks again, and hears a heartbeat.
    control.heard_hello().await;
    within(views.wait_for(|view| view.takes_part())).await.unwrap();
    assert_eq!(gateway.authority.twice(), None);
}

#[tokio::test]
async fn the_process_that_holds_the_place_goes_on_and_knows_of_the_other() {
    let (_directory, control, gateway) = linked().await;
    control.send(told(false));
    within(async {
        while gateway.authority.twice().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(gateway.authority.view().takes_part());
    assert_eq!(control.links(), 1, "the link stays");
}

/// Less than a process waits for the control plane's first word, and much more than that takes.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_start_waits_for_no_control_plane_that_is_out_of_reach() {
    let (directory, control, gateway) = linked().await;
    gateway.stop().await;
    drop(control);
    let authority = open_again(directory.path()).await;
    authority.ask_first();
    assert!(!authority.view().takes_part());
    let begun = Instant::now();
    let mut gateway = Gateway::start(authority);
    gateway.status(|status| status.problem.is_some()).await;
    assert!(gateway.authority.view().takes_part());
    assert!(begun.elapsed() < SOON, "the connection was refused: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_start_waits_for_the_control_planes_first_word_and_no_longer() {
    let (directory, mut control, gateway) = linked().await;
    gateway.stop().await;
    control.beats(None);
    let authority = open_again(directory.path()).await;
    authority.ask_first();
    let mut views = authority.subscribe();
    let begun = Instant::now();
    let gateway = Gateway::start(authority);
    assert_eq!(control.heard_hello().await, 1);
    assert!(!gateway.authority.view().takes_part(), "it has said nothing yet, {:?}", begun.elapsed());
    control.send(WatchEvent::Heartbeat { revision: 1, now_ms: gateway_net::time::unix_ms() });
    within(views.wait_for(|view| view.takes_part())).await.unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_relay_token_replaces_the_one_before_and_a_strangers_does_not() {
    let (_directory, control, gateway) = linked().await;
    let key = gateway.authority.gateway_key().public();
    let mut tokens = gateway.authority.relay_token();
    let fresh = control.relay_token(key, gateway_net::time::unix_secs() + 5);
    control.send(WatchEvent::RelayToken { token: "not.a-token".into() });
    control.send(WatchEvent::RelayToken { token: fresh.clone() });
    within(tokens.wait_for(|token| token.as_ref() == Some(&fresh))).await.unwrap();
}
