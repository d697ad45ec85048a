use std::sync::atomic::Ordering::Relaxed;

use gateway_proto::{
    balance::{Balance, BalanceTimes, Difference, Tally},
    mllp::End,
};
use proptest::prelude::*;

use super::*;

const MESSAGE: &[u8] = b"\x0bMSH|^~\\&|A|B|C|D|1||ADT^A01|ID\r\x1c\r";
const ACCEPTED: &[u8] = b"\x0bMSH|^~\\&|C|D|A|B|2||ACK|R\rMSA|AA|ID\r\x1c\r";

/// An end sees these bytes of a message, an answer to it perhaps, and something at the partner's side ends the stream.
fn stream(traffic: &Traffic, message: &[u8], answer: &[u8]) {
    let book = traffic.book(Protocol::Mllp);
    let mut book = book.lock().unwrap();
    let mut exchange = book.begin(true);
    book.asked(&mut exchange, message, Instant::now());
    book.answered(&mut exchange, answer, Instant::now());
    book.end(exchange, End::Otherwise);
}

#[test]
fn a_message_that_waits_is_told_with_its_time_and_its_late_acknowledgement_when_it_comes() {
    let traffic = Traffic::default();
    let book = traffic.book(Protocol::Mllp);
    let sent = Instant::now() - Duration::from_millis(8_140);
    let mut exchange = book.lock().unwrap().begin(true);
    book.lock().unwrap().asked(&mut exchange, MESSAGE, sent);
    let told = warnings(&traffic, Protocol::Mllp, ChannelLimits::default());
    assert!(told.len() == 1 && told[0].starts_with("waiting for an acknowledgement for "), "{told:?}");
    assert!(told[0].contains("an engine that waits 5 s"), "{told:?}");
    book.lock().unwrap().answered(&mut exchange, ACCEPTED, sent + Duration::from_millis(8_140));
    let told = warnings(&traffic, Protocol::Mllp, ChannelLimits::default());
    assert!(told.len() == 1 && told[0].starts_with("late: an acknowledgement came 8.1 s after"), "{told:?}");
    let Some(ExchangeStatus::Mllp(seen)) = status(&traffic, Protocol::Mllp) else { panic!("an MLLP book") };
    assert_eq!((seen.late_answers, seen.accepted, seen.outstanding), (1, 1, 0));
}

/// A message passes in pieces of 500 bytes, four in a second, and its engine gives up before an answer.
fn slowly(traffic: &Traffic, begun_at: Instant) {
    let long = format!("\x0bMSH|^~\\&|A|B|C|D|1||ADT^A01|ID\rZZZ|{}\r\x1c\r", "x".repeat(15_000));
    let book = traffic.book(Protocol::Mllp);
    let mut exchange = book.lock().unwrap().begin(true);
    let mut now = begun_at;
    for piece in long.as_bytes().chunks(500) {
        book.lock().unwrap().asked(&mut exchange, piece, now);
        now += Duration::from_millis(250);
    }
    book.lock().unwrap().end(exchange, End::ByTheSender);
}

#[test]
fn a_message_that_takes_longer_under_the_rate_of_its_grant_than_its_engine_waits_is_told_with_the_rate_as_the_cause() {
    let traffic = Traffic::default();
    let begun_at = Instant::now() - Duration::from_secs(60);
    slowly(&traffic, begun_at);
    let told = |bytes_per_second| {
        warnings(&traffic, Protocol::Mllp, ChannelLimits { bytes_per_second, ..ChannelLimits::default() })
    };
    let slow = "slow: a message took 7.5 s under the grant's limit of 2000 bytes per second";
    let told_once = told(Some(2_000));
    assert!(told_once.len() == 1 && told_once[0].starts_with(slow), "before it has come again: {told_once:?}");
    assert!(told(None).is_empty() && told(Some(1_000_000)).is_empty(), "a slow line or engine");

    slowly(&traffic, begun_at + Duration::from_secs(8));
    let told_again = told(Some(2_000));
    let is_duplicate = |told: &&String| told.starts_with("duplicate: ");
    let by_the_rate = told_again.iter().find(is_duplicate).unwrap();
    assert!(by_the_rate.contains("limit of 2000 bytes") && !by_the_rate.contains("partner's"), "{by_the_rate}");
    let by_the_partner = told(None);
    assert!(by_the_partner.iter().find(is_duplicate).unwrap().contains("the partner's ACK takes longer"));
}

#[test]
fn a_message_that_the_receiving_engine_cut_and_acknowledged_when_it_came_again_is_proved_delivered() {
    let (sender, listener) = (Traffic::default(), Traffic::default());
    // The sender's gateway has taken it all when the listener's engine ends its connection.
    stream(&sender, MESSAGE, b"");
    stream(&listener, &MESSAGE[..12], b"");
    let told = |traffic: &Traffic| counts(traffic, Protocol::Mllp, Role::Sender);
    let repeated = |traffic: &Traffic| (told(traffic).messages, told(traffic).repeated);
    assert_eq!((repeated(&sender), repeated(&listener)), ((1, 0), (0, 0)));
    for end in [&sender, &listener] {
        stream(end, MESSAGE, ACCEPTED);
    }
    assert_eq!((repeated(&sender), repeated(&listener)), ((2, 1), (1, 0)));

    let (mut tallies, mut balance) = ([Tally::default(), Tally::default()], Balance::default());
    let times = BalanceTimes { grace: 10, lasting: 60, settled: 900 };
    for minute in 1..10 {
        for (tally, end) in tallies.iter_mut().zip([&sender, &listener]) {
            tally.report(&[told(end)], minute * 60);
            tally.confirm(minute * 60);
        }
        let [sender, listener] = &tallies;
        assert_eq!(balance.handle_tallies(sender, listener, minute * 60, &times), None);
    }
    assert_eq!(balance.explained(), Difference { messages: 1, answers: 0 });
}

#[test]
fn every_behavior_tells_something_to_meter_and_what_is_not_observed_tells_its_streams() {
    let traffic = Traffic::default();
    (0..4).for_each(|_| traffic.carried_unobserved());
    traffic.refused.store(9, Relaxed);
    let streams = counts(&traffic, Protocol::Unknown, Role::Sender);
    assert_eq!((streams.messages, streams.streams, streams.uncompared), (0, 4, true));
    for (protocol, asks, answers) in [
        (Protocol::Http, &b"GET / HTTP/1.1\r\n\r\n"[..], &b"HTTP/1.1 204 No Content\r\n\r\n"[..]),
        (
            Protocol::Dicom,
            &b"\x01\0\0\0\0\x44\0\x01\0\0OIE             MODALITY        \
               \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..],
            &b"\x03\0\0\0\0\x04\0\x01\x01\x07"[..],
        ),
    ] {
        let book = traffic.book(protocol);
        let mut book = book.lock().unwrap();
        let mut exchange = book.begin(true);
        book.asked(&mut exchange, asks, Instant::now());
        book.answered(&mut exchange, answers, Instant::now());
        book.end(exchange, End::ByTheSender);
        drop(book);
        traffic.finished.fetch_add(1, Relaxed);
        for role in [Role::Sender, Role::Listener] {
            let told = counts(&traffic, protocol, role);
            assert_eq!((told.messages, told.accepted, told.streams), (1, 1, 0), "{protocol:?}");
            assert!(!told.uncompared && told.epoch > streams.epoch, "{told:?}");
        }
    }
    // The same run of the same counters: what was observed in between is not metered again.
    assert_eq!(counts(&traffic, Protocol::Unknown, Role::Sender), streams);
}

/// What is said in a protocol, with something secret at every `@`.
const SAID: [(Protocol, [&str; 3]); 3] = [
    (
        Protocol::Mllp,
        [
            "\x0bMSH|^~\\&|@|@|@|@|@||@^@|@|P|2.5\rPID|1||@\r\x1c\r",
            "\x0bMSH|^~\\&|C|D|A|B|2026||ACK|R|P|2.5\rMSA|@|@|@\r\x1c\r",
            "@\x0b@\x1c\r",
        ],
    ),
    (
        Protocol::Http,
        [
            "POST /@?@=@ HTTP/1.1\r\nHost: @\r\n@: @\r\nContent-Length: 12\r\n\r\n@",
            "HTTP/1.1 200 @\r\nX: @\r\nContent-Length: 12\r\n\r\n@",
            "@ /@ HTTP/1.1\r\n\r\n",
        ],
    ),
    (Protocol::Dicom, ["\x04\0\0\0\0\x12\0\0\0\x0e\x01\x03@", "\x03\0\0\0\0\x10\0\x01\x01\x07@", "\x02\0\0\0\0\x0c@"]),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_word_of_what_passes_is_in_status_warnings_or_reports(
        letters in prop::collection::vec(b'a'..=b'z', 9),
        which in 0..SAID.len(),
        turns in prop::collection::vec((any::<bool>(), 0..3_usize, 1..90_usize), 1..10),
    ) {
        let (protocol, said) = SAID[which];
        let token = format!("qzx{}", String::from_utf8_lossy(&letters));
        let traffic = Traffic::default();
        let book = traffic.book(protocol);
        let mut exchange = book.lock().unwrap().begin(true);
        let mut seen = String::new();
        for (asks, sample, length) in turns {
            let bytes = said[sample].replace('@', &token).into_bytes();
            // Units of DICOM stay whole: what comes apart may pass for a title, which is shown.
            let length = if protocol == Protocol::Dicom { bytes.len() } else { length.min(bytes.len()) };
            let mut book = book.lock().unwrap();
            match asks {
                true => _ = book.asked(&mut exchange, &bytes[..length], Instant::now()),
                false => book.answered(&mut exchange, &bytes[..length], Instant::now()),
            }
            drop(book);
            seen += &serde_json::to_string(&status(&traffic, protocol)).unwrap();
            seen += &warnings(&traffic, protocol, ChannelLimits::default()).join(" ");
            seen += &serde_json::to_string(&counts(&traffic, protocol, Role::Listener)).unwrap();
        }
        prop_assert!(seen.contains('{'), "nothing is told: {seen}");
        prop_assert!(!seen.contains(&token[..4]), "{token} in {seen}");
    }
}
