//! The log as the daemon uses it: streams, refusals and calls are noted, a writer writes.

use std::{fs, time::Duration};

use gateway_proto::{
    admin::call::AdminCall,
    api::local::AdminCounters,
    audit::{
        note::{OurReason, Refusal, RefusedBy, StreamEnding},
        record::Event,
    },
    stream::RefusalCode,
};

use super::{
    super::{AuditLog, NOTES, Names, PLACES},
    acts, call, connection, ended, records, text, verify,
};
use crate::{config::AuditConfig, traffic::Role};

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
