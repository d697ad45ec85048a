//! What was observed of a connection, in lines for people.

use std::fmt::Write;

use gateway_proto::api::local::{
    AnswerTimes, ConnectionStatus, DicomStatus, ExchangeStatus, HttpStatus, MllpStatus, PlacesStatus,
};

use super::milliseconds;
use crate::output::text::printable;

/// Lines of the observer, then what streams wait for and what somebody should look at.
pub(super) fn lines(connection: &ConnectionStatus) -> Vec<(&'static str, String)> {
    let mut lines = match &connection.exchange {
        Some(ExchangeStatus::Mllp(mllp)) => mllp_lines(mllp),
        Some(ExchangeStatus::Http(http)) => http_lines(http),
        Some(ExchangeStatus::Dicom(dicom)) => dicom_lines(dicom),
        None => Vec::new(),
    };
    if connection.unobserved {
        lines.push(("Observer", "switched off ([observer] off)".to_owned()));
    }
    lines.extend(connection.places.map(|places| ("Places", places_line(places))));
    lines.extend(connection.waiting.as_deref().map(|waiting| ("Waiting", printable(waiting))));
    lines.extend(connection.warnings.iter().map(|warning| ("Warning", printable(warning))));
    lines
}

fn places_line(places: PlacesStatus) -> String {
    let PlacesStatus { most, told_by, taken, waiting } = places;
    let mut line = match most {
        Some(most) => format!("{taken} of {most} of the engine's listener taken"),
        None => format!("{taken} of the engine's listener taken, which has no limit"),
    };
    some(&mut line, waiting.into(), "waiting");
    let _ = write!(line, "; the number is from {told_by}");
    line
}

fn mllp_lines(mllp: &MllpStatus) -> Vec<(&'static str, String)> {
    let mut messages = format!("{} passed", mllp.messages);
    if let Some(last) = &mllp.last_type {
        let _ = write!(messages, ", the last {}", printable(last));
    }
    some(&mut messages, mllp.outstanding, "outstanding");
    some(&mut messages, mllp.unacknowledged, "unacknowledged at close");
    some(&mut messages, mllp.duplicates, "duplicate");
    some(&mut messages, mllp.retries, "sent again after an interruption");
    let mut answers = format!("{} accepted", mllp.accepted);
    some(&mut answers, mllp.errors, "errors");
    some(&mut answers, mllp.rejected, "rejected");
    some(&mut answers, mllp.other_answers, "without a code");
    some(&mut answers, mllp.late_answers, "late");
    some(&mut answers, mllp.mismatched_answers, "for another message");
    some(&mut answers, mllp.commits_accepted, "commit blocks");
    some(&mut answers, mllp.commits_refused, "commit blocks that refuse");
    answers.push_str(&within(mllp.answer_times));
    let mut lines = vec![("Messages", messages), ("Answers", answers)];
    if !mllp.framing_faults.is_empty() {
        let faults: Vec<_> = mllp.framing_faults.iter().map(|(kind, n)| format!("{n} {}", printable(kind))).collect();
        lines.push(("Framing", faults.join(", ")));
    }
    lines
}

fn http_lines(http: &HttpStatus) -> Vec<(&'static str, String)> {
    let mut requests = format!("{} reads, {} writes", http.reads, http.writes);
    some(&mut requests, http.others, "others");
    some(&mut requests, http.unanswered, "unanswered at close");
    some(&mut requests, http.upgraded, "upgraded");
    some(&mut requests, http.unreadable, "connections not HTTP/1.1");
    let [_, success, redirect, client, server] = http.statuses;
    let mut answers = format!("{success} 2xx");
    some(&mut answers, redirect, "3xx");
    some(&mut answers, client, "4xx");
    some(&mut answers, server, "5xx");
    answers.push_str(&within(http.answer_times));
    vec![("Requests", requests), ("Answers", answers)]
}

fn dicom_lines(dicom: &DicomStatus) -> Vec<(&'static str, String)> {
    let mut associations = format!("{} requested, {} accepted", dicom.requested, dicom.accepted);
    some(&mut associations, dicom.rejected, "rejected");
    some(&mut associations, dicom.aborted, "aborted");
    some(&mut associations, dicom.unreadable, "connections not DICOM");
    if let Some(rejection) = &dicom.rejection {
        let _ = write!(associations, "; the last was rejected: {}", printable(rejection));
    }
    let mut lines = vec![("Associations", associations)];
    if let (Some(calling), Some(called)) = (&dicom.calling, &dicom.called) {
        lines.push(("Titles", format!("{} calls {}", printable(calling), printable(called))));
    }
    let (sent, received) = (dicom.data_units_sent, dicom.data_units_received);
    lines.push(("Data units", format!("{sent} from the caller, {received} to it")));
    lines
}

fn some(text: &mut String, count: u64, what: &str) {
    if count > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, ", {count} {what}");
    }
}

fn within(times: Option<AnswerTimes>) -> String {
    times.map_or_else(String::new, |times| {
        format!("; half within {}, 99 % within {}", milliseconds(times.p50_ms), milliseconds(times.p99_ms))
    })
}

#[cfg(test)]
mod tests {
    use gateway_proto::api::local::PlacesToldBy;

    use super::*;

    #[test]
    fn an_mllp_connection_shows_what_happened_and_leaves_out_what_did_not() {
        let mllp = MllpStatus {
            messages: 12,
            accepted: 10,
            errors: 1,
            outstanding: 1,
            last_type: Some("ADT^A01".into()),
            answer_times: Some(AnswerTimes { p50_ms: 3.21, p99_ms: 48.4 }),
            ..MllpStatus::default()
        };
        let expected = [
            ("Messages", "12 passed, the last ADT^A01, 1 outstanding"),
            ("Answers", "10 accepted, 1 errors; half within 3.2 ms, 99 % within 48 ms"),
        ];
        assert_eq!(mllp_lines(&mllp), expected.map(|(label, text)| (label, text.to_owned())));
    }

    #[test]
    fn http_and_dicom_show_theirs() {
        let http = HttpStatus { reads: 3, statuses: [0, 2, 0, 1, 0], ..HttpStatus::default() };
        assert_eq!(http_lines(&http)[1].1, "2 2xx, 1 4xx");
        let dicom = DicomStatus {
            requested: 1,
            rejected: 1,
            rejection: Some("congestion".into()),
            called: Some("OIE".into()),
            calling: Some("CT\u{1b}".into()),
            ..DicomStatus::default()
        };
        let lines = dicom_lines(&dicom);
        assert_eq!(lines[0].1, "1 requested, 0 accepted, 1 rejected; the last was rejected: congestion");
        assert!(!lines[1].1.contains('\u{1b}'));
    }

    #[test]
    fn the_places_of_a_listener_are_shown_with_who_counts_them() {
        let places = PlacesStatus { most: Some(3), told_by: PlacesToldBy::Engine, taken: 3, waiting: 2 };
        assert_eq!(
            places_line(places),
            "3 of 3 of the engine's listener taken, 2 waiting; the number is from the engine"
        );
        let places = PlacesStatus { most: None, told_by: PlacesToldBy::Configuration, taken: 1, waiting: 0 };
        assert_eq!(
            places_line(places),
            "1 of the engine's listener taken, which has no limit; the number is from [listener] max_connections"
        );
    }
}
