use std::{
    fs,
    path::{Path, PathBuf},
};

use gateway_proto::{
    admin::opening::KnownBy,
    audit::{
        line::{LineError, LineVerifier, Verified},
        note::{OurReason, RefusedBy, StreamEnding},
        record::{Begun, Event, Record},
    },
    stream::RefusalCode,
};
use proptest::prelude::*;

use super::{
    files::{LogFiles, Retention, parts},
    *,
};

const PLENTY: Retention = Retention { max_bytes: u64::MAX, max_age: None };

pub(crate) fn call() -> AdminCall {
    AdminCall {
        connection: ConnectionId::new(1, [1; 10]),
        organization: "North\n\u{1b}[2J".into(),
        server: "north".into(),
        user: "maria".into(),
        known_by: KnownBy::LocalAccount,
        person: None,
        account: None,
        method: "GET".into(),
        path: "/channels".into(),
        class: None,
        status: 200,
        refused: None,
        duration_ms: 1,
    }
}

fn connection() -> ConnectionId {
    ConnectionId::new(1, [1; 10])
}

fn text(dir: &Path) -> String {
    parts(dir).unwrap().iter().map(|part| fs::read_to_string(&part.path).unwrap()).collect()
}

fn verify(dir: &Path) -> Result<Verified, LineError> {
    let mut verifier = LineVerifier::default();
    text(dir).lines().try_for_each(|line| verifier.push(line).map(drop))?;
    verifier.finish()
}

fn records(dir: &Path) -> Vec<Record> {
    text(dir).lines().map(|line| gateway_proto::audit::line::read(line).unwrap().0).collect()
}

fn acts(dir: &Path) -> Vec<&'static str> {
    records(dir).iter().map(|record| record.event.act()).collect()
}

/// Lets go of the log, and lets the writer come to its end.
async fn ended(log: AuditLog, writer: AuditWriter) -> PathBuf {
    let dir = log.0.shared.dir.clone();
    drop(log);
    writer.run(Names::default()).await;
    dir
}

/// Appends one record to a file that is full.
fn turn(files: &mut LogFiles) -> io::Result<()> {
    files.fill();
    files.append(1, [Event::Ended])
}

#[test]
fn what_a_full_disk_does_not_take_at_the_start_comes_first_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = LogFiles::open(directory.path(), PLENTY).unwrap();
    assert!(!files.is_behind());
    let before = files.head();
    let begun = Event::Begun(Begun { version: "1".into(), in_order: true, torn_bytes: 0, broken: false });
    let file = files.on_a_full_disk(begun.clone()).unwrap();
    for _ in 0..2 {
        files.append(2, [Event::Ended]).unwrap_err();
        assert!(files.is_behind());
        assert_eq!(files.head(), before);
    }
    files.with_room(file);
    files.append(3, [Event::Ended]).unwrap();
    assert!(!files.is_behind());
    let records = records(directory.path());
    let last: Vec<_> = records.iter().rev().take(2).map(|record| record.event.clone()).collect();
    assert_eq!(last, [Event::Ended, begun]);
    verify(directory.path()).unwrap();
}

#[tokio::test]
async fn streams_refusals_and_calls_are_one_chain_and_a_stream_that_is_dropped_lost_its_tunnel() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = AuditLog::open(directory.path(), &AuditConfig::default()).unwrap();
    let stream = log.stream(connection(), Role::Sender, 7);
    stream.observe();
    stream.passed(2);
    stream.opened();
    stream.sent(100);
    stream.received(30);
    stream.over(StreamEnding::Clean);
    // What comes later does not count.
    stream.cut();
    drop(stream);
    drop(log.stream(connection(), Role::Listener, 8));
    let lost = log.admin_stream(connection(), Role::Listener, 9);
    lost.opened();
    drop(lost);
    log.refused(Refusal { by: RefusedBy::Partner, ..Refusal::of_stream(RefusalCode::ListenerFull) });
    log.place().await.unwrap().record(call());
    let dir = ended(log, writer).await;
    assert_eq!(verify(&dir).unwrap().missing, 0);
    let mut acts = acts(&dir);
    assert_eq!((acts[0], acts[1], *acts.last().unwrap()), ("log.file", "log.begin", "log.end"));
    acts.sort_unstable();
    assert_eq!(acts[..2], ["admin.call", "log.begin"]);
    assert_eq!(acts[4..], ["stream.end", "stream.end", "stream.refuse", "stream.refuse"]);
    let ends: Vec<_> = records(&dir)
        .into_iter()
        .filter_map(|record| {
            let Event::StreamEnded(end) = record.event else { return None };
            Some((end.trace, end.ending, end.bytes_sent, end.bytes_received, end.messages))
        })
        .collect();
    assert_eq!(ends[0], ("0000000000000007".to_owned(), StreamEnding::Clean, 100, 30, Some(2)));
    assert_eq!((ends[1].1, ends[1].4), (StreamEnding::TunnelLost, None));
    let text = text(&dir);
    assert!(text.contains(r#""reason":"tunnel_lost""#) && text.contains(r#""reason":"listener_full""#), "{text}");
    // Names of partners stay within their line.
    assert!(text.contains(r"North\n\u001b[2J") && text.lines().all(|line| line.starts_with('{')), "{text}");
}

#[tokio::test]
async fn what_the_queue_cannot_take_is_a_record_with_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = AuditLog::open(directory.path(), &AuditConfig::default()).unwrap();
    for _ in 0..NOTES + 5 {
        let stream = log.stream(connection(), Role::Sender, 1);
        stream.opened();
        stream.cut();
    }
    assert_eq!(log.counters().lost, NOTES as u64 + 10);
    let dir = ended(log, writer).await;
    assert_eq!(verify(&dir).unwrap().missing, NOTES as u64 + 10);
    assert!(acts(&dir).contains(&"log.gap"));
}

#[tokio::test]
async fn a_chatty_sender_fills_no_disk_and_every_stream_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = AuditLog::open(directory.path(), &AuditConfig::default()).unwrap();
    for _ in 0..6_000 {
        let stream = log.stream(connection(), Role::Sender, 1);
        stream.opened();
        stream.sent(10);
        stream.over(StreamEnding::Clean);
    }
    let dir = ended(log, writer).await;
    let records = records(&dir);
    let (mut streams, mut sent) = (0, 0);
    for record in &records {
        if let Event::StreamEnded(end) = &record.event {
            (streams, sent) = (streams + 1, sent + end.bytes_sent);
        } else if let Event::Streams(many) = &record.event {
            (streams, sent) = (streams + many.ended[&StreamEnding::Clean], sent + many.bytes_sent);
        }
    }
    assert_eq!((streams, sent), (6_000, 60_000));
    assert!(records.len() < 2_600, "{}", records.len());
}

#[tokio::test]
async fn a_call_that_began_is_recorded_however_much_else_waits_and_none_begins_without_a_place() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer) = AuditLog::open(directory.path(), &AuditConfig::default()).unwrap();
    let change = log.place().await.unwrap();
    for _ in 0..NOTES * 2 {
        log.refused(Refusal::of_stream(OurReason::NoHeader));
    }
    // The writer stands still, and the queue is filled.
    for _ in 1..PLACES {
        log.place().await.unwrap().record(AdminCall { refused: Some("no".into()), ..call() });
    }
    assert!(futures_util::poll!(std::pin::pin!(log.place())).is_pending());
    // Handed over without waiting: whoever cuts the stream cannot prevent it.
    change.record(AdminCall { path: "/channels/_stop".into(), ..call() });
    let counted = AdminCounters { passed: 1, refused: PLACES as u64 - 1, ..AdminCounters::default() };
    assert_eq!(log.admin_counters(), counted);
    let dir = ended(log, writer).await;
    let found = records(&dir)
        .into_iter()
        .any(|record| matches!(&record.event, Event::AdminCall(call) if call.path == "/channels/_stop"));
    assert!(found && verify(&dir).is_ok());
}

#[tokio::test]
async fn only_a_call_that_the_engine_answered_counts_as_passed() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _writer) = AuditLog::open(directory.path(), &AuditConfig::default()).unwrap();
    let refused = |status| AdminCall { status, refused: Some("no".into()), ..call() };
    let over = |status| AdminCall { status, ..call() };
    for call in [over(200), over(404), refused(403), refused(502), over(502), over(0)] {
        log.place().await.unwrap().record(call);
    }
    assert_eq!(log.admin_counters(), AdminCounters { passed: 2, refused: 2, unanswered: 2, unrecorded: 0 });
}

#[tokio::test]
async fn a_disk_that_takes_nothing_stops_no_stream_and_the_gap_is_told_when_it_does_again() {
    let directory = tempfile::tempdir().unwrap();
    let (log, mut writer) = AuditLog::open(directory.path(), &AuditConfig::default()).unwrap();
    let dir = log.0.shared.dir.clone();
    // The next file cannot be begun: its name is taken by a folder.
    writer.fill();
    let in_the_way = dir.join(format!("audit-{:020}.jsonl", 2));
    fs::create_dir(&in_the_way).unwrap();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(writer.run(Names::default()));
    let stream = log.stream(connection(), Role::Sender, 1);
    stream.opened();
    stream.over(StreamEnding::Clean);
    log.place().await.unwrap().record(call());
    while log.is_writable() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(log.admin_counters().unrecorded, 1);
    fs::remove_dir(&in_the_way).unwrap();
    // By itself, although nothing else is to be written.
    while !log.is_writable() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop((stream, log));
    running.join_all().await;
    assert_eq!(verify(&dir).unwrap().missing, 2);
    let gap = records(&dir).into_iter().find_map(|record| {
        let Event::Gap(gap) = record.event else { return None };
        Some(gap)
    });
    assert_eq!(gap.map(|gap| (gap.unwritten, gap.unwritten_calls, gap.too_fast)), Some((2, 1, 0)));
}

#[test]
fn a_line_cut_off_by_a_crash_is_removed_and_told_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut files = LogFiles::open(dir, PLENTY).unwrap();
    files.append(1, [Event::Ended]).unwrap();
    drop(files);
    let path = parts(dir).unwrap()[0].path.clone();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], b"{\"hash\":\"torn"].concat()).unwrap();
    drop(LogFiles::open(dir, PLENTY).unwrap());
    let Event::Begun(begun) = &records(dir)[3].event else { panic!("{:?}", acts(dir)) };
    assert_eq!((begun.torn_bytes, begun.in_order, begun.broken), (13, false, false));
    assert_eq!(verify(dir).unwrap().unclean_starts, 1);
    // A crash at the very beginning of a file: half a head, then none.
    fs::write(dir.join("audit-00000000000000000004.jsonl"), "{\"ha").unwrap();
    drop(LogFiles::open(dir, PLENTY).unwrap());
    assert_eq!(verify(dir).unwrap().unclean_starts, 2);
    assert_eq!(acts(dir), ["log.file", "log.begin", "log.end", "log.begin", "log.begin"]);
}

#[test]
fn a_log_that_was_changed_while_the_daemon_was_away_is_not_continued_as_if_nothing_were() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    drop(LogFiles::open(dir, PLENTY).unwrap());
    let path = parts(dir).unwrap()[0].path.clone();
    let text = fs::read_to_string(&path).unwrap().replacen("\"in_order\":true", "\"in_order\":false", 1);
    fs::write(&path, text).unwrap();
    drop(LogFiles::open(dir, PLENTY).unwrap());
    assert_eq!(verify(dir), Err(LineError::Changed { sequence: 1 }));
    let Event::Begun(begun) = &records(dir)[3].event else { panic!("{:?}", acts(dir)) };
    assert!(begun.broken);
}

#[test]
fn the_oldest_files_go_when_there_are_too_many_and_what_is_left_verifies_because_a_record_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut files = LogFiles::open(dir, PLENTY).unwrap();
    for _ in 0..4 {
        turn(&mut files).unwrap();
    }
    assert_eq!(parts(dir).unwrap().len(), 5);
    drop(files);
    let small = Retention { max_bytes: 1_000, max_age: None };
    let mut files = LogFiles::open(dir, small).unwrap();
    turn(&mut files).unwrap();
    let verified = verify(dir).unwrap();
    assert!(verified.first > 0 && parts(dir).unwrap().len() < 5, "{:?}", parts(dir));
    // Somebody removes one more.
    fs::remove_file(&parts(dir).unwrap()[0].path).unwrap();
    assert!(matches!(verify(dir), Err(LineError::Beheaded { .. })));
}

#[test]
fn files_older_than_the_time_are_removed_and_the_one_that_grows_stays() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut files = LogFiles::open(dir, PLENTY).unwrap();
    turn(&mut files).unwrap();
    drop(files);
    let old = std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    for part in parts(dir).unwrap() {
        fs::File::options().append(true).open(&part.path).unwrap().set_modified(old).unwrap();
    }
    let retention = Retention { max_bytes: u64::MAX, max_age: Some(Duration::from_secs(24 * 3600)) };
    let mut files = LogFiles::open(dir, retention).unwrap();
    files.remove_oldest().unwrap();
    assert_eq!(parts(dir).unwrap().len(), 1);
    assert!(verify(dir).unwrap().first > 0);
}

#[test]
fn a_next_file_that_cannot_be_begun_costs_nothing_and_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut files = LogFiles::open(dir, PLENTY).unwrap();
    let in_the_way = dir.join(format!("audit-{:020}.jsonl", 2));
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..30 {
        turn(&mut files).unwrap_err();
    }
    fs::remove_dir(&in_the_way).unwrap();
    turn(&mut files).unwrap();
    assert_eq!(acts(dir), ["log.file", "log.begin", "log.file", "log.end"]);
    assert!(verify(dir).is_ok());
}

#[test]
fn the_newest_records_are_found_across_files_and_lines_come_a_file_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut files = LogFiles::open(dir, PLENTY).unwrap();
    for _ in 0..3 {
        turn(&mut files).unwrap();
    }
    let newest = reader::newest(dir, 3, "log.e").unwrap();
    assert!(newest.whole && newest.lines.iter().map(|line| line.record.sequence).eq([3, 5, 7]), "{newest:?}");
    let (mut from, mut all) = (0, String::new());
    loop {
        let page = String::from_utf8(reader::lines_from(dir, from).unwrap()).unwrap();
        let Some(last) = page.lines().next_back() else { break };
        from = gateway_proto::audit::line::read(last).unwrap().0.sequence + 1;
        all.push_str(&page);
    }
    assert_eq!(all, text(dir));
    let path = parts(dir).unwrap()[1].path.clone();
    let changed = fs::read_to_string(&path).unwrap().replacen("\"at\":1,", "\"at\":2,", 1);
    fs::write(&path, changed).unwrap();
    assert!(!reader::newest(dir, 100, "").unwrap().whole);
}

#[test]
fn a_log_that_was_cut_or_written_anew_does_not_hold_what_was_reported_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut files = LogFiles::open(dir, PLENTY).unwrap();
    files.append(1, [Event::Ended, Event::Ended]).unwrap();
    let early = files.head();
    turn(&mut files).unwrap();
    files.append(1, [Event::Ended, Event::Ended]).unwrap();
    let reported = files.head();
    files.append(1, [Event::Ended]).unwrap();
    drop(files);
    let held = |head: &Head| reader::held(dir, head).unwrap();
    assert_eq!((held(&early), held(&reported)), (AuditHeld::Held, AuditHeld::Held));
    assert_eq!(held(&Head { sequence: reported.sequence, hash: early.hash.clone() }), AuditHeld::Changed);
    let (first, last) = (parts(dir).unwrap()[0].path.clone(), parts(dir).unwrap()[1].path.clone());
    let (old, new) = (fs::read_to_string(&first).unwrap(), fs::read_to_string(&last).unwrap());
    // A line before it, and one between it and the newest.
    fs::write(&last, new.replacen("\"at\":1,", "\"at\":2,", 1)).unwrap();
    assert_eq!(held(&reported), AuditHeld::Changed);
    fs::write(&last, &new).unwrap();
    fs::write(&first, old.replacen("\"at\":1,", "\"at\":2,", 1)).unwrap();
    assert_eq!(held(&early), AuditHeld::Changed);
    assert_eq!(
        held(&reported),
        AuditHeld::Held,
        "the chain of its file stands on a hash, and a verifier reads the rest"
    );
    fs::write(&first, &old).unwrap();
    // The newest lines are gone, and the daemon goes on as if nothing was.
    let lines: Vec<_> = new.split_inclusive('\n').collect();
    fs::write(&last, lines[..lines.len() - 2].concat()).unwrap();
    assert_eq!(held(&reported), AuditHeld::CutOff);
    let mut files = LogFiles::open(dir, PLENTY).unwrap();
    assert_eq!(held(&reported), AuditHeld::Changed);
    files.append(1, [Event::Ended]).unwrap();
    assert_eq!(held(&reported), AuditHeld::Changed);
    // A whole file is gone.
    drop(files);
    fs::remove_file(&last).unwrap();
    assert_eq!(held(&reported), AuditHeld::CutOff);
    fs::remove_file(&first).unwrap();
    assert_eq!(held(&reported), AuditHeld::CutOff);
}

#[test]
fn what_was_removed_when_its_time_was_over_is_not_missed_and_a_new_chain_is() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut files = LogFiles::open(dir, Retention { max_bytes: 1, max_age: None }).unwrap();
    let reported = files.head();
    let turns = (0..5).map(|_| turn(&mut files)).collect::<io::Result<Vec<_>>>();
    assert!(turns.is_ok() && parts(dir).unwrap()[0].first > reported.sequence);
    assert_eq!(reader::held(dir, &reported).unwrap(), AuditHeld::Removed);
    // Whoever removes more than the log says is found out.
    let gone = parts(dir).unwrap()[0].clone();
    fs::remove_file(&gone.path).unwrap();
    assert!(reader::held(dir, &reported).unwrap().is_alarm());
    // The last line does not verify: the daemon begins a new chain, which does not follow from what was reported.
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let mut files = LogFiles::open(dir, PLENTY).unwrap();
    let reported = files.head();
    files.append(1, [Event::Ended]).unwrap();
    drop(files);
    let path = parts(dir).unwrap()[0].path.clone();
    fs::write(&path, fs::read_to_string(&path).unwrap().replacen("\"at\":1,", "\"at\":2,", 1)).unwrap();
    drop(LogFiles::open(dir, PLENTY).unwrap());
    assert_eq!(reader::held(dir, &reported).unwrap(), AuditHeld::Changed);
}

#[tokio::test]
async fn only_what_a_power_cut_does_not_take_back_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let config = AuditConfig { sync: Duration::from_secs(3600), ..AuditConfig::default() };
    let (log, writer) = AuditLog::open(directory.path(), &config).unwrap();
    assert_eq!(log.durable_head(), None);
    drop(log.stream(connection(), Role::Sender, 7));
    let looking = log.clone();
    let dir = ended(log, writer);
    let looked = async {
        while looking.counters().written == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let durable = looking.durable_head();
        drop(looking);
        durable
    };
    let (dir, durable) = tokio::join!(dir, looked);
    assert_eq!(durable, None, "written, and not on the disk for sure");
    assert!(verify(&dir).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_chain_goes_on_over_files_starts_crashes_and_removals(
        steps in prop::collection::vec(0..4, 1..20),
        max_bytes in 200_u64..4_000,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        let retention = Retention { max_bytes, max_age: None };
        let mut files = LogFiles::open(dir, retention).unwrap();
        for step in steps {
            match step {
                0 => files.append(1, [Event::Ended, Event::Ended]).unwrap(),
                1 => turn(&mut files).unwrap(),
                2 => {
                    drop(files);
                    files = LogFiles::open(dir, retention).unwrap();
                }
                _ => {
                    let path = parts(dir).unwrap().pop().unwrap().path;
                    drop(files);
                    let whole = fs::read(&path).unwrap();
                    fs::write(&path, [&whole[..], b"{\"hash"].concat()).unwrap();
                    files = LogFiles::open(dir, retention).unwrap();
                }
            }
            prop_assert!(verify(dir).is_ok(), "{:?}", verify(dir));
        }
        let head = verify(dir).unwrap().head;
        prop_assert_eq!(head, Some(files.head()));
    }
}
