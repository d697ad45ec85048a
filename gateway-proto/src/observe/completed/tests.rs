//! What the two ends of a connection tell of the same streams, compared.

#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]

use std::time::Instant;

use crate::{
    balance::{Balance, BalanceTimes, Difference, EndCounts, Tally},
    mllp::{End, HashKey},
    observe::{Book, Completed, Protocol},
};

const HTTP: [&[u8]; 2] =
    [b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"];
/// An association is asked for, and rejected.
const DICOM: [&[u8]; 2] = [
    b"\x01\0\0\0\0\x44\0\x01\0\0OIE             MODALITY        \
      \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x03\0\0\0\0\x04\0\x01\x01\x07",
];
const BOTH: [(Protocol, [&[u8]; 2]); 2] = [(Protocol::Http, HTTP), (Protocol::Dicom, DICOM)];

/// One end sees these bytes of each side, in one stream that ends so.
fn seen(protocol: Protocol, asks: &[u8], answers: &[u8], end: End) -> Completed {
    let mut book = Book::new(protocol, HashKey::from_bytes([1; 16]));
    let (mut exchange, now) = (book.begin(false), Instant::now());
    book.asked(&mut exchange, asks, now);
    book.accepted(&mut exchange);
    book.answered(&mut exchange, answers, now);
    book.end(exchange, end);
    match &book {
        Book::Http(ledger) => ledger.counts.completed,
        Book::Dicom(ledger) => ledger.counts.completed,
        Book::Mllp(_) | Book::Nothing => Completed::default(),
    }
}

/// What of it is an alarm after some quiet minutes.
fn alarm(sender: EndCounts, listener: EndCounts) -> Option<Difference> {
    let (mut tallies, mut balance) = ([Tally::default(), Tally::default()], Balance::default());
    let times = BalanceTimes { grace: 10, lasting: 60, settled: 900 };
    for minute in 1..10 {
        for (tally, told) in tallies.iter_mut().zip([sender, listener]) {
            tally.report(&[told], minute * 60);
            tally.confirm(minute * 60);
        }
        let [sender, listener] = &tallies;
        balance.handle_tallies(sender, listener, minute * 60, &times);
    }
    balance.alarm().map(|alarm| alarm.difference)
}

#[test]
fn only_an_answer_that_was_waited_for_and_did_not_arrive_is_a_difference() {
    for (protocol, [asks, answers]) in BOTH {
        let see = |asks: &[u8], answers: &[u8], end| seen(protocol, asks, answers, end);
        let cut = &asks[..asks.len() - 3];
        for (what, sender, listener, expected) in [
            ("answered", see(asks, answers, End::ByTheSender), see(asks, answers, End::ByTheSender), None),
            ("cut", see(asks, b"", End::Otherwise), see(cut, b"", End::Otherwise), None),
            ("never handed over", see(asks, b"", End::Otherwise), see(b"", b"", End::Otherwise), None),
            ("given up, answered", see(asks, b"", End::ByTheSender), see(asks, answers, End::ByTheSender), None),
            ("given up", see(asks, b"", End::ByTheSender), see(asks, b"", End::ByTheSender), None),
            ("its engine closes", see(asks, b"", End::ByTheReceiver), see(asks, b"", End::ByTheReceiver), None),
            (
                "its engine resets what it said",
                see(asks, b"", End::ByTheReceiver),
                see(asks, answers, End::ByTheReceiver),
                None,
            ),
            ("its gateway was killed", see(asks, answers, End::Otherwise), Completed::default(), None),
            (
                "the tunnel took the answer",
                see(asks, b"", End::Otherwise),
                see(asks, answers, End::Otherwise),
                Some(Difference { messages: 0, answers: 1 }),
            ),
        ] {
            assert_eq!(alarm(sender.at_sender(1), listener.at_listener(2)), expected, "{protocol:?}: {what}");
        }
    }
}

#[test]
fn what_is_under_way_is_not_counted_however_long_it_takes() {
    for (protocol, [asks, answers]) in BOTH {
        let mut book = Book::new(protocol, HashKey::from_bytes([1; 16]));
        let (mut exchange, now) = (book.begin(true), Instant::now());
        let completed = |book: &Book| match book {
            Book::Http(ledger) => ledger.counts.completed,
            Book::Dicom(ledger) => ledger.counts.completed,
            Book::Mllp(_) | Book::Nothing => Completed::default(),
        };
        book.asked(&mut exchange, asks, now);
        assert_eq!(completed(&book), Completed::default(), "{protocol:?}");
        book.answered(&mut exchange, answers, now);
        assert_eq!(completed(&book), Completed { answered: 1, ..Completed::default() }, "{protocol:?}");
    }
}

#[test]
fn an_end_that_lost_track_of_what_was_asked_tells_it_and_one_that_could_read_nothing_is_metered_by_streams() {
    let asked_and_garbage = [HTTP[0], b"\x16\x03\x01"].concat();
    let adrift = seen(Protocol::Http, &asked_and_garbage, HTTP[1], End::ByTheSender);
    assert_eq!((adrift.adrift, adrift.at_sender(1).adrift), (1, 1), "{adrift:?}");
    let many = HTTP[0].repeat(17);
    assert_eq!(seen(Protocol::Http, &many, HTTP[1], End::ByTheSender).at_sender(1).adrift, 1);
    for protocol in [Protocol::Http, Protocol::Dicom] {
        let unread = seen(protocol, b"\x16\x03\x01\x02", b"\x16\x03\x01", End::ByTheSender);
        let told = [unread.at_sender(1), unread.at_listener(2)];
        for end in told {
            assert_eq!((end.messages, end.streams, end.uncompared), (0, 1, false), "{protocol:?}");
        }
        assert_eq!(alarm(told[0], told[1]), None);
    }
}

#[test]
fn what_a_partner_says_amiss_keeps_the_ends_from_being_compared_no_longer_than_its_stream() {
    for (protocol, [asks, answers], amiss) in [
        (Protocol::Http, HTTP, &b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n"[..]),
        (Protocol::Dicom, DICOM, &b"\x08\0\0\0\0\0"[..]),
    ] {
        for accepted in [true, false] {
            let mut book = Book::new(protocol, HashKey::from_bytes([1; 16]));
            let told = |book: &Book| match book {
                Book::Http(ledger) => ledger.counts.completed.at_sender(1),
                Book::Dicom(ledger) => ledger.counts.completed.at_sender(1),
                Book::Mllp(_) | Book::Nothing => EndCounts::default(),
            };
            let (mut exchange, now) = (book.begin(accepted), Instant::now());
            book.asked(&mut exchange, asks, now);
            book.accepted(&mut exchange);
            book.answered(&mut exchange, amiss, now);
            let open = told(&book);
            assert!(open.uncompared && open.adrift == 0, "{protocol:?}: {open:?}");
            book.end(exchange, End::ByTheSender);
            let over = told(&book);
            assert!(!over.uncompared && over.adrift == 1, "{protocol:?}: {over:?}");

            let mut sound = book.begin(accepted);
            book.asked(&mut sound, asks, now);
            book.answered(&mut sound, answers, now);
            book.end(sound, End::ByTheSender);
            let later = told(&book);
            assert_eq!((later.messages, later.adrift, later.uncompared), (1, 1, false), "{protocol:?}");
        }
    }
}
