//! What the observers saw of a connection, in the words of status and reports.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gateway_proto::{
    api::local::{AnswerTimes, DicomStatus, ExchangeStatus, HttpStatus, MllpStatus},
    balance::EndCounts,
    limits::ChannelLimits,
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

/// What somebody should look at. `limits`: those of the grant.
pub(super) fn warnings(traffic: &Traffic, protocol: Protocol, limits: ChannelLimits) -> Vec<String> {
    // What was learned before the observer was switched off says nothing any more.
    let silence = traffic.silence().filter(|_| protocol != Protocol::Unknown).map(|silence| {
        let (lasts, usual) = (minutes(silence.lasts), minutes(silence.usual));
        format!("silent for {lasts}: at this hour the longest usual pause is {usual}")
    });
    let book = traffic.book(protocol);
    let book: MutexGuard<'_, Book> = book.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = match &*book {
        Book::Mllp(ledger) => {
            let seen: Vec<_> = ledger.warnings(Instant::now()).collect();
            let rate = seen.iter().find_map(|warning| held_back(warning, limits));
            seen.into_iter().filter_map(|seen| warning(seen, rate)).collect()
        }
        Book::Http(_) | Book::Dicom(_) | Book::Nothing => Vec::new(),
    };
    silence.into_iter().chain(seen).collect()
}

/// The rate of the grant, in bytes per second, where it is what a message took so long for.
fn held_back(warning: &Warning, limits: ChannelLimits) -> Option<u64> {
    match *warning {
        Warning::Slow { took, bytes, .. } if limits.rate()?.holds_back(bytes, took) => limits.bytes_per_second,
        Warning::Slow { .. }
        | Warning::Duplicate { .. }
        | Warning::Waiting { .. }
        | Warning::Late { .. }
        | Warning::Mismatched
        | Warning::Framing(_) => None,
    }
}

/// `rate`: that of the grant, in bytes per second, where messages take longer under it than engines wait.
fn warning(warning: Warning, rate: Option<u64>) -> Option<String> {
    Some(match (warning, rate) {
        // On a slow line, or from a slow engine: as long as it moves, its engine has not sent all of it.
        (Warning::Slow { .. }, None) => return None,
        (Warning::Slow { took, patience, .. }, Some(rate)) => format!(
            "slow: a message took {:.1} s under the grant's limit of {rate} bytes per second: an engine that waits {} s for \
             the acknowledgement sends it again before, and the copies hold up each other; it needs a higher limit, or the \
             sending engine a longer response timeout",
            took.as_secs_f32(),
            patience.as_secs_f32()
        ),
        (Warning::Duplicate { after }, Some(rate)) => format!(
            "duplicate: the same control id came again on a new connection without an acknowledgement, after {:.1} s: \
             messages take longer under the grant's limit of {rate} bytes per second than the sending engine waits",
            after.as_secs_f32()
        ),
        (Warning::Duplicate { after }, None) => format!(
            "duplicate: the same control id came again on a new connection without an acknowledgement, after {:.1} s: the \
             partner's ACK takes longer than the engine's response timeout",
            after.as_secs_f32()
        ),
        (Warning::Waiting { lasts, patience }, _) => format!(
            "waiting for an acknowledgement for {} s: an engine that waits {} s for it sends the message again",
            lasts.as_secs(),
            patience.as_secs_f32()
        ),
        (Warning::Late { took, patience }, _) => format!(
            "late: an acknowledgement came {:.1} s after its message; an engine that waits {} s for it sends the \
             message again",
            took.as_secs_f32(),
            patience.as_secs_f32()
        ),
        (Warning::Mismatched, _) => {
            "an acknowledgement named another message than the one that waited for it".to_owned()
        }
        (Warning::Framing(fault), _) => format!(
            "framing: {}",
            match fault {
                Fault::Junk => "bytes between frames",
                Fault::EndMissing => "a message without its end bytes 0x1C 0x0D: the next one is taken for its rest",
                Fault::NoHeader => "a frame that begins neither with MSH nor with FHS or BHS",
                Fault::Empty => "an empty frame",
                Fault::Cut => "a connection that ended in the middle of a message",
            }
        ),
    })
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
mod tests;
