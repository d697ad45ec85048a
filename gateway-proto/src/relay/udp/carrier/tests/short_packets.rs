//! UDP that carries long datagrams and drops short ones.

use super::*;

#[test]
fn long_answers_do_not_hide_that_short_packets_vanish_under_way() {
    for (rtt_ms, shortest) in [(1, 150), (30, 100), (150, 1_100)] {
        let mut line = Line::new(rtt_ms);
        line.run_with_data(5_000);
        assert_eq!(line.carrier.limit(), Some(MAX_PAYLOAD));
        line.shortest = shortest;
        let took = until_the_limit_falls(&mut line, |line| {
            line.carrier.active(MAX_PAYLOAD, line.now);
            line.carrier.active(40, line.now);
        });
        assert!(took < Duration::from_millis(2_000 + 3 * rtt_ms), "{took:?} at {rtt_ms} ms");
        assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::OnlyLargePackets));
        line.run_with_data(600_000);
        assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::OnlyLargePackets));
        assert_eq!(line.carrier.changes().get(&CarrierReason::Passes), Some(&1), "it is not taken up in between");
        line.shortest = 0;
        line.run_with_data(65_000);
        assert_eq!(line.carrier.limit(), Some(MAX_PAYLOAD), "no latch");
    }
}

#[test]
fn messages_that_are_all_short_and_vanish_say_that_only_long_ones_pass() {
    let mut line = Line::new(30);
    line.run_with(5_000, |line| {
        line.carrier.active(150, line.now);
    });
    line.shortest = 170;
    let took = until_the_limit_falls(&mut line, |line| {
        line.carrier.active(150, line.now);
    });
    assert!(took < Duration::from_millis(2_100), "{took:?}");
    assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::OnlyLargePackets));
}

#[test]
fn a_way_that_came_to_drop_short_packets_while_nothing_moved_is_noticed_by_the_next_ping() {
    let mut line = Line::new(30);
    line.run(60_000);
    line.shortest = 150;
    line.run(17_000);
    assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::OnlyLargePackets));
}

#[test]
fn a_line_that_never_carried_short_packets_is_not_used() {
    let mut line = Line::new(30);
    line.shortest = 150;
    line.run(3_000);
    assert_eq!((line.carrier.limit(), line.carrier.reason()), (None, CarrierReason::OnlyLargePackets));
    assert!(line.pings.len() < 30, "{} pings", line.pings.len());
}

#[test]
fn beside_a_transfer_one_empty_ping_a_second_leaves() {
    let mut line = Line::new(20);
    line.run_with_data(3_000);
    line.pings.clear();
    line.run_with_data(20_000);
    let empty = line.pings.iter().filter(|(_, payload)| *payload == 0).count();
    assert!((14..=21).contains(&empty), "{empty} empty pings in 20 s");
}

/// A carrier that has just begun a try, its first two pings, and when.
fn first_pings() -> (UdpCarrier, Vec<Ping>, Instant) {
    let (mut carrier, now) = (UdpCarrier::default(), Instant::now());
    carrier.start(now);
    carrier.handle_timeout(now, 0);
    carrier.handle_timeout(now, 0);
    let pings: Vec<_> = std::iter::from_fn(|| carrier.poll_transmit()).collect();
    assert_eq!(pings.iter().map(|ping| ping.payload).collect::<Vec<_>>(), [MAX_PAYLOAD, 0]);
    (carrier, pings, now + Duration::from_millis(10))
}

fn answer(to: Ping, validated: bool) -> Answer {
    Answer { id: to.id, challenge: 7, validated }
}

#[test]
fn an_empty_answer_that_overtakes_the_long_one_costs_no_time() {
    let (mut carrier, pings, now) = first_pings();
    carrier.answered(answer(pings[1], false), 0, now);
    carrier.answered(answer(pings[0], false), MAX_PAYLOAD, now);
    let again: Vec<_> = std::iter::from_fn(|| carrier.poll_transmit()).collect();
    assert_eq!(again.iter().map(|ping| (ping.payload, ping.echo)).collect::<Vec<_>>(), [(MAX_PAYLOAD, 7)]);
    carrier.answered(answer(again[0], true), MAX_PAYLOAD, now);
    assert_eq!(carrier.limit(), Some(MAX_PAYLOAD));
}

#[test]
fn a_long_answer_to_a_question_of_the_same_instant_does_not_say_that_only_long_ones_pass() {
    let (mut carrier, _, now) = first_pings();
    carrier.rise(MAX_PAYLOAD, now);
    carrier.ping(0, now);
    carrier.ping(MAX_PAYLOAD, now);
    let pings: Vec<_> = std::iter::from_fn(|| carrier.poll_transmit()).collect();
    carrier.answered(answer(pings[1], true), MAX_PAYLOAD, now + Duration::from_millis(10));
    carrier.handle_timeout(now + MAX_SILENCE, 0);
    assert_eq!((carrier.limit(), carrier.reason()), (None, CarrierReason::StoppedPassing));
}
