//! What the observers saw of a connection, in the words of status and reports.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gateway_proto::{
    api::local::{AnswerTimes, DicomStatus, ExchangeStatus, HttpStatus, MllpStatus},
    balance::EndCounts,
    mllp::Fault,
    observe::{Book, Counts, Latency, Ledger, Protocol, Warning, dicom::DicomLedger, http::HttpLedger},
};

use super::millis;
use crate::traffic::{Role, Traffic, Way};

/// What was observed.
pub(super) fn status(traffic: &Traffic, protocol: Protocol) -> Option<ExchangeStatus> {
    let book = traffic.book(protocol);
    match &*book.lock().unwrap_or_else(PoisonError::into_inner) {
        Book::Mllp(ledger) => Some(ExchangeStatus::Mllp(mllp(ledger))),
        Book::Http(ledger) => Some(ExchangeStatus::Http(http(ledger))),
        Book::Dicom(ledger) => Some(ExchangeStatus::Dicom(dicom(ledger))),
        Book::Nothing => None,
    }
}

/// What passed, for the delivery proof and the metering. Where nothing is observed, the streams themselves are metered.
pub(super) fn counts(traffic: &Traffic, protocol: Protocol, role: Role) -> EndCounts {
    let (epoch, book) = traffic.dated_book(protocol);
    let completed = match &*book.lock().unwrap_or_else(PoisonError::into_inner) {
        Book::Mllp(ledger) => {
            // What waits for its turn is in no book yet.
            let under_way = ledger.is_under_way(Instant::now()) || traffic.pace(Way::FromPeer).is_waited_for();
            return EndCounts { under_way, ..messages(epoch, &ledger.counts()) };
        }
        Book::Http(ledger) => ledger.counts.completed,
        Book::Dicom(ledger) => ledger.counts.completed,
        // They count on whatever becomes of the books.
        Book::Nothing => {
            return EndCounts {
                epoch: traffic.began_at,
                streams: traffic.unobserved(),
                uncompared: true,
                ..EndCounts::default()
            };
        }
    };
    match role {
        Role::Sender => completed.at_sender(epoch),
        Role::Listener => completed.at_listener(epoch),
    }
}

fn messages(epoch: u64, counts: &Counts) -> EndCounts {
    EndCounts {
        epoch,
        messages: counts.messages,
        accepted: counts.accepted,
        errors: counts.errors,
        rejected: counts.rejected,
        other: counts.other_answers,
        outstanding: counts.outstanding,
        unacknowledged: counts.unacknowledged,
        repeated: counts.duplicates + counts.retries,
        ..EndCounts::default()
    }
}

/// What somebody should look at.
pub(super) fn warnings(traffic: &Traffic, protocol: Protocol) -> Vec<String> {
    // What was learned before the observer was switched off says nothing any more.
    let silence = traffic.silence().filter(|_| protocol != Protocol::Unknown).map(|silence| {
        let (lasts, usual) = (minutes(silence.lasts), minutes(silence.usual));
        format!("silent for {lasts}: at this hour the longest usual pause is {usual}")
    });
    let book = traffic.book(protocol);
    let book: MutexGuard<'_, Book> = book.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = match &*book {
        Book::Mllp(ledger) => ledger.warnings(Instant::now()).map(warning).collect(),
        Book::Http(_) | Book::Dicom(_) | Book::Nothing => Vec::new(),
    };
    silence.into_iter().chain(seen).collect()
}

fn warning(warning: Warning) -> String {
    match warning {
        Warning::Duplicate { after } => format!(
            "duplicate: the same control id came again on a new connection without an acknowledgement, after {:.1} s: the \
             partner's ACK takes longer than the engine's response timeout",
            after.as_secs_f32()
        ),
        Warning::Waiting { lasts, patience } => format!(
            "waiting for an acknowledgement for {} s: an engine that waits {} s for it sends the message again",
            lasts.as_secs(),
            patience.as_secs_f32()
        ),
        Warning::Late { took, patience } => format!(
            "late: an acknowledgement came {:.1} s after its message; an engine that waits {} s for it sends the \
             message again",
            took.as_secs_f32(),
            patience.as_secs_f32()
        ),
        Warning::Mismatched => "an acknowledgement named another message than the one that waited for it".to_owned(),
        Warning::Framing(fault) => format!(
            "framing: {}",
            match fault {
                Fault::Junk => "bytes between frames",
                Fault::EndMissing => "a message without its end bytes 0x1C 0x0D: the next one is taken for its rest",
                Fault::NoHeader => "a frame that begins neither with MSH nor with FHS or BHS",
                Fault::Empty => "an empty frame",
                Fault::Cut => "a connection that ended in the middle of a message",
            }
        ),
    }
}

fn mllp(ledger: &Ledger) -> MllpStatus {
    let counts = ledger.counts();
    let mut types: BTreeMap<_, _> = ledger.kinds().known().iter().map(|(kind, n)| (kind.to_string(), *n)).collect();
    if ledger.kinds().other() > 0 {
        types.insert("other".to_owned(), ledger.kinds().other());
    }
    MllpStatus {
        messages: counts.messages,
        accepted: counts.accepted,
        errors: counts.errors,
        rejected: counts.rejected,
        other_answers: counts.other_answers,
        commits_accepted: counts.commits_accepted,
        commits_refused: counts.commits_refused,
        outstanding: counts.outstanding,
        unacknowledged: counts.unacknowledged,
        duplicates: counts.duplicates,
        retries: counts.retries,
        late_answers: counts.late_answers,
        mismatched_answers: counts.mismatched_answers,
        framing_faults: framing_faults(&counts).filter(|(_, n)| *n > 0).map(|(k, n)| (k.to_owned(), n)).collect(),
        types,
        last_type: ledger.last_kind().map(|kind| kind.to_string()),
        last_code: ledger.last_code().map(|code| code.as_str().to_owned()),
        answer_times: answer_times(ledger.latency()),
    }
}

fn framing_faults(counts: &Counts) -> impl Iterator<Item = (&'static str, u64)> {
    [
        ("junk", counts.junk),
        ("end_missing", counts.end_missing),
        ("no_header", counts.no_header),
        ("empty", counts.empty),
        ("cut", counts.cut),
    ]
    .into_iter()
}

fn http(ledger: &HttpLedger) -> HttpStatus {
    let counts = &ledger.counts;
    HttpStatus {
        reads: counts.reads,
        writes: counts.writes,
        others: counts.others,
        statuses: counts.statuses,
        unanswered: counts.unanswered,
        upgraded: counts.upgraded,
        unreadable: counts.unreadable,
        answer_times: answer_times(&ledger.latency),
    }
}

fn dicom(ledger: &DicomLedger) -> DicomStatus {
    let counts = &ledger.counts;
    DicomStatus {
        requested: counts.requested,
        accepted: counts.accepted,
        rejected: counts.rejected,
        aborted: counts.aborted,
        released: counts.released,
        data_units_sent: counts.data_units_sent,
        data_units_received: counts.data_units_received,
        unreadable: counts.unreadable,
        called: ledger.called.map(|title| title.to_string()),
        calling: ledger.calling.map(|title| title.to_string()),
        rejection: ledger.rejection.map(|rejection| rejection.to_string()),
    }
}

fn answer_times(latency: &Latency) -> Option<AnswerTimes> {
    let (p50, p99) = (latency.quantile(0.5)?, latency.quantile(0.99)?);
    Some(AnswerTimes { p50_ms: millis(p50), p99_ms: millis(p99) })
}

fn minutes(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs() / 60 * 60)).to_string()
}

#[cfg(test)]
mod tests {
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
        let told = warnings(&traffic, Protocol::Mllp);
        assert!(told.len() == 1 && told[0].starts_with("waiting for an acknowledgement for "), "{told:?}");
        assert!(told[0].contains("an engine that waits 5 s"), "{told:?}");
        book.lock().unwrap().answered(&mut exchange, ACCEPTED, sent + Duration::from_millis(8_140));
        let told = warnings(&traffic, Protocol::Mllp);
        assert!(told.len() == 1 && told[0].starts_with("late: an acknowledgement came 8.1 s after"), "{told:?}");
        let Some(ExchangeStatus::Mllp(seen)) = status(&traffic, Protocol::Mllp) else { panic!("an MLLP book") };
        assert_eq!((seen.late_answers, seen.accepted, seen.outstanding), (1, 1, 0));
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
        (
            Protocol::Dicom,
            ["\x04\0\0\0\0\x12\0\0\0\x0e\x01\x03@", "\x03\0\0\0\0\x10\0\x01\x01\x07@", "\x02\0\0\0\0\x0c@"],
        ),
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
                seen += &warnings(&traffic, protocol).join(" ");
                seen += &serde_json::to_string(&counts(&traffic, protocol, Role::Listener)).unwrap();
            }
            prop_assert!(seen.contains('{'), "nothing is told: {seen}");
            prop_assert!(!seen.contains(&token[..4]), "{token} in {seen}");
        }
    }
}
