//! Delivery proof between gateways that watch at the same replica, and at two.

use gateway_proto::{
    api::platform::{AuditEntry, Executions},
    balance::EndCounts,
};

use super::{
    harness::{Control, Pair, Watch},
    reports::{counted, told},
};

/// The shortest time between two rounds.
const OFTEN: &str = "delivery_interval_secs = 2";

#[tokio::test]
async fn a_difference_between_both_ends_is_an_alarm_until_they_are_equal() {
    let control = Control::start_with(OFTEN).await;
    proved(&control, &control).await;
}

#[tokio::test]
async fn the_ends_are_compared_when_their_gateways_watch_at_different_replicas() {
    let one = Control::start_with(OFTEN).await;
    let Some(other) = one.replica_with(OFTEN).await else { return };
    proved(&one, &other).await;
}

/// The sender watches at one, the listener at the other.
async fn proved(at_sender: &Control, at_listener: &Control) {
    let pair = at_sender.pair().await;
    let id = pair.connection("Orders").await;
    let mut sender = pair.hospital_gateway.watch(at_sender).await;
    let mut listener = pair.lab_gateway.watch(at_listener).await;
    sender.policy().await;
    listener.policy().await;

    count(&mut sender, &id, 5, 5).await;
    count(&mut listener, &id, 5, 5).await;
    until(&pair, &id, "compared", |delivery| {
        (delivery.sender_messages, delivery.listener_messages) == (5, 5) && delivery.alarm.is_none()
    })
    .await;

    // Two messages more than arrived: for a moment they may be on their way.
    count(&mut sender, &id, 7, 5).await;
    until(&pair, &id, "an alarm", |delivery| {
        delivery.alarm.is_some_and(|alarm| (alarm.difference.messages, alarm.difference.answers) == (2, 0))
    })
    .await;
    // They are sent again, as the queue of an engine does.
    count(&mut sender, &id, 9, 7).await;
    count(&mut listener, &id, 9, 7).await;
    until(&pair, &id, "equal again", |delivery| delivery.alarm.is_none() && delivery.listener_messages == 9).await;
    for organization in [&pair.hospital, &pair.lab] {
        let entries: Vec<AuditEntry> = organization.list("/audit?limit=200").await;
        for action in ["connection.delivery_differs", "connection.delivery_equal"] {
            assert_eq!(entries.iter().filter(|entry| entry.act == action).count(), 1, "{action}");
        }
    }
}

#[tokio::test]
async fn what_gateways_counted_before_they_left_is_entered_and_metered_once() {
    let control = Control::start_with(OFTEN).await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let mut sender = pair.hospital_gateway.watch(&control).await;
    let mut listener = pair.lab_gateway.watch(&control).await;
    let revisions = (sender.policy().await.revision, listener.policy().await.revision);
    for watch in [&mut sender, &mut listener] {
        count(watch, &id, 100, 100).await;
        watch.stream.close(None).await.unwrap();
        while watch.event().await.is_some() {}
    }
    // The sender's gateway comes back at once and goes on, the listener's was started anew.
    let mut sender = pair.hospital_gateway.watch_from(&control, revisions.0).await;
    count(&mut sender, &id, 105, 105).await;
    let mut listener = pair.lab_gateway.watch_from(&control, revisions.1).await;
    count_of(&mut listener, &id, 2, 5, 5).await;
    until(&pair, &id, "entered", |delivery| (delivery.sender_messages, delivery.listener_messages) == (105, 105)).await;
    count(&mut sender, &id, 110, 110).await;
    count_of(&mut listener, &id, 2, 10, 10).await;
    until(&pair, &id, "entered", |delivery| (delivery.sender_messages, delivery.listener_messages) == (110, 110)).await;
    for organization in [&pair.hospital, &pair.lab] {
        let metered: Vec<Executions> = organization.list("/executions").await;
        assert_eq!(metered.iter().map(|row| row.number).sum::<u64>(), 110);
    }
}

#[tokio::test]
async fn what_was_told_before_a_connection_ended_is_metered_although_the_round_comes_after_its_end() {
    let control = Control::start_with("delivery_interval_secs = 3600").await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut sender, mut listener) = pair.watches().await;
    sender.policy().await;
    listener.policy().await;
    count(&mut sender, &id, 7, 7).await;
    count(&mut listener, &id, 6, 6).await;
    pair.lab.until(&id, "reported", |shown| shown.sender.report.is_some() && shown.listener.report.is_some()).await;
    let _: serde_json::Value = pair.lab.post(&format!("/connections/{id}/terminate"), serde_json::json!({})).await;
    for _ in 0..2 {
        control.service.prove_deliveries().await.unwrap();
        for (organization, number) in [(&pair.hospital, 7), (&pair.lab, 6)] {
            let metered: Vec<Executions> = organization.list("/executions").await;
            assert_eq!(metered.iter().map(|row| row.number).sum::<u64>(), number, "once");
        }
    }
}

#[tokio::test]
async fn ends_of_which_one_does_not_count_are_not_compared_and_what_passed_meanwhile_is_no_difference() {
    let control = Control::start_with(OFTEN).await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let mut sender = pair.hospital_gateway.watch(&control).await;
    let mut listener = pair.lab_gateway.watch(&control).await;
    sender.policy().await;
    listener.policy().await;
    // The observer of one is off, as in an older gateway whose behavior it did not count.
    let off = EndCounts { epoch: 1, streams: 4, uncompared: true, ..EndCounts::default() };
    listener.send(&told(vec![counted(&id, off)])).await;
    count(&mut sender, &id, 100, 100).await;
    until(&pair, &id, "not compared", |delivery| delivery.uncompared && delivery.sender_messages == 100).await;
    count_of(&mut listener, &id, 2, 7, 7).await;
    until(&pair, &id, "compared from here on", |delivery| !delivery.uncompared && delivery.alarm.is_none()).await;
    count(&mut sender, &id, 105, 100).await;
    until(&pair, &id, "an alarm", |delivery| delivery.alarm.is_some_and(|alarm| alarm.difference.messages == 5)).await;
}

#[tokio::test]
async fn a_stream_that_could_not_be_followed_hides_what_passed_in_it_and_nothing_after_it() {
    for is_told_while_open in [true, false] {
        let control = Control::start_with(OFTEN).await;
        let pair = control.pair().await;
        let id = pair.connection("Orders").await;
        let mut sender = pair.hospital_gateway.watch(&control).await;
        let mut listener = pair.lab_gateway.watch(&control).await;
        sender.policy().await;
        listener.policy().await;
        count(&mut sender, &id, 100, 100).await;
        count(&mut listener, &id, 100, 100).await;
        until(&pair, &id, "compared", |delivery| !delivery.uncompared && delivery.listener_messages == 100).await;
        // The listener's gateway goes on to follow where the sender's cannot.
        let seen = EndCounts { epoch: 1, messages: 101, accepted: 101, ..EndCounts::default() };
        if is_told_while_open {
            let open = EndCounts { uncompared: true, ..seen };
            sender.send(&told(vec![counted(&id, open)])).await;
            until(&pair, &id, "not compared", |delivery| delivery.uncompared && delivery.sender_messages == 101).await;
        }
        count(&mut listener, &id, 105, 105).await;
        let over = EndCounts { adrift: 1, ..seen };
        sender.send(&told(vec![counted(&id, over)])).await;
        until(&pair, &id, "compared from here on", |delivery| {
            let written_off = (delivery.written_off.messages, delivery.written_off.answers);
            !delivery.uncompared && delivery.alarm.is_none() && written_off == (-4, 4)
        })
        .await;
        let lost = EndCounts { messages: 106, ..over };
        sender.send(&told(vec![counted(&id, lost)])).await;
        until(&pair, &id, "an alarm", |delivery| delivery.alarm.is_some_and(|alarm| alarm.difference.messages == 5))
            .await;
    }
}

async fn until(pair: &Pair<'_>, id: &str, what: &str, is: impl Fn(&gateway_proto::api::platform::Delivery) -> bool) {
    pair.lab.until(id, what, |connection| connection.delivery.as_ref().is_some_and(&is)).await;
}

/// A gateway reports so many messages and answers since it started.
async fn count(watch: &mut Watch, id: &str, messages: u64, accepted: u64) {
    count_of(watch, id, 1, messages, accepted).await;
}

/// The same of one of its runs.
async fn count_of(watch: &mut Watch, id: &str, epoch: u64, messages: u64, accepted: u64) {
    let counts = EndCounts { epoch, messages, accepted, ..EndCounts::default() };
    watch.send(&told(vec![counted(id, counts)])).await;
}
