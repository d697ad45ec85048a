//! The files and their chain: full disks, crashes, changes by other hands, and what is removed when its time is over.

use std::{fs, io, time::Duration};

use gateway_proto::{
    api::local::AuditHeld,
    audit::{
        line::{Head, LineError},
        record::{Begun, Event},
    },
};
use proptest::prelude::*;

use super::{
    super::{
        files::{LogFiles, Retention, parts},
        reader,
    },
    acts, records, text, verify,
};

const PLENTY: Retention = Retention { max_bytes: u64::MAX, max_age: None };

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
