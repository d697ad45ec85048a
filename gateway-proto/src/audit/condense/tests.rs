use super::{super::note::Refusable, *};
use crate::{identity::GatewayKey, stream::RefusalCode};

fn key(serial: u64) -> StreamKey {
    StreamKey { serial, connection: ConnectionId::new(1, [1; 10]), role: StreamRole::Sender, trace: 7 }
}

fn opened(serial: u64) -> Note {
    Note { at: serial, what: Noted::Opened(key(serial)) }
}

fn ended(serial: u64) -> Note {
    let end =
        StreamEnd { ending: StreamEnding::Clean, duration_ms: 1, bytes_sent: 10, bytes_received: 3, messages: Some(1) };
    Note { at: serial, what: Noted::Ended(key(serial), end) }
}

fn refused(seed: u8, trace: u64) -> Note {
    let peer = Some(GatewayKey::from_seed(&[seed; 32]).public());
    let refusal = Refusal { peer, trace, ..Refusal::of_stream(RefusalCode::Paused) };
    Note { at: trace, what: Noted::Refused(refusal) }
}

// The clock of a test begins somewhere.
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
fn begin() -> Instant {
    Instant::now()
}

fn run(condenser: &mut Condenser, notes: &[Note], now: Instant) -> Vec<Condensed> {
    let mut out = Vec::new();
    condenser.handle_notes(notes, now, &mut out);
    out
}

fn timeout(condenser: &mut Condenser, now: Instant) -> Vec<Condensed> {
    let mut out = Vec::new();
    condenser.handle_timeout(now, &mut out);
    out
}

#[test]
fn a_stream_that_ends_at_once_has_one_record_and_one_that_stays_has_two_whatever_its_trace() {
    let (mut condenser, now) = (Condenser::default(), begin());
    let first = run(&mut condenser, &[opened(1), opened(2), ended(1)], now);
    assert_eq!(first, [Condensed::One(opened(2)), Condensed::One(ended(1))]);
    assert_eq!(run(&mut condenser, &[ended(2)], now), [Condensed::One(ended(2))]);
    assert_eq!(condenser.poll_timeout(), None);
}

#[test]
fn streams_beyond_the_pace_are_counted_and_none_is_lost() {
    let (mut condenser, now) = (Condenser::default(), begin());
    let total = u64::from(BURST) + 500;
    let notes: Vec<_> = (0..total).flat_map(|serial| [opened(serial), ended(serial)]).collect();
    let out = run(&mut condenser, &notes, now);
    assert_eq!(out.len(), BURST as usize);
    let due = condenser.poll_timeout().unwrap();
    assert_eq!(due, now + WINDOW);
    assert!(timeout(&mut condenser, due - Duration::from_millis(1)).is_empty());
    let many = timeout(&mut condenser, due);
    let [Condensed::Many(many)] = &many[..] else { panic!("{many:?}") };
    assert_eq!(many.ended, BTreeMap::from([(StreamEnding::Clean, 500)]));
    assert_eq!((many.opened, many.bytes_sent, many.bytes_received, many.messages), (0, 5_000, 1_500, 500));
    assert_eq!((many.since, many.until), (u64::from(BURST), total - 1));
    // Meanwhile there is room again, at the pace.
    assert_eq!(run(&mut condenser, &[ended(total)], due), [Condensed::One(ended(total))]);
}

#[test]
fn another_connection_keeps_its_own_pace() {
    let (mut condenser, now) = (Condenser::default(), begin());
    let notes: Vec<_> = (0..u64::from(BURST) * 2).map(ended).collect();
    run(&mut condenser, &notes, now);
    let other = StreamKey { connection: ConnectionId::new(2, [2; 10]), ..key(1) };
    let note = Note { at: 1, what: Noted::Opened(other) };
    assert_eq!(run(&mut condenser, &[note], now), [Condensed::One(note)]);
}

#[test]
fn of_equal_refusals_the_first_is_told_at_once_and_the_others_as_a_number() {
    let (mut condenser, now) = (Condenser::default(), begin());
    let notes: Vec<_> = (0..1_000).map(|trace| refused(1, trace)).chain([refused(2, 0)]).collect();
    let out = run(&mut condenser, &notes, now);
    assert_eq!(out, [Condensed::One(refused(1, 0)), Condensed::One(refused(2, 0))]);
    let out = timeout(&mut condenser, now + FLOOD);
    let [Condensed::More(refusal, 999, 999)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((refusal.trace, refusal.reason), (0, RefusalCode::Paused.into()));
    // It goes on: still no record each.
    assert!(run(&mut condenser, &[refused(1, 5)], now + FLOOD).is_empty());
    let later = now + FLOOD * 2;
    assert!(matches!(timeout(&mut condenser, later)[..], [Condensed::More(_, 1, 5)]));
    // It was over for a while: the next is a first one again.
    assert!(timeout(&mut condenser, later + FLOOD).is_empty());
    assert_eq!(condenser.poll_timeout(), None);
    assert_eq!(run(&mut condenser, &[refused(1, 6)], later + FLOOD), [Condensed::One(refused(1, 6))]);
}

#[test]
fn strangers_without_number_take_a_bounded_table_and_are_all_counted() {
    let (mut condenser, now) = (Condenser::default(), begin());
    let stranger = |number: u64| {
        let connection = Some((ConnectionId::new(number, [0; 10]), StreamRole::Listener));
        let refusal = Refusal { what: Refusable::Stream, connection, ..Refusal::of_stream(OurReason::NoHeader) };
        Note { at: number, what: Noted::Refused(refusal) }
    };
    let notes: Vec<_> = (0..MAX_KINDS as u64 + 5_000).map(stranger).collect();
    let out = run(&mut condenser, &notes, now);
    assert_eq!(out.len(), MAX_KINDS);
    assert!(condenser.floods.len() <= MAX_KINDS + 1);
    let out = timeout(&mut condenser, now + FLOOD);
    let [Condensed::More(refusal, 5_000, _)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(refusal.reason, OurReason::Various.into());
    assert!(condenser.floods.is_empty());
}

#[test]
fn what_is_counted_is_told_at_the_end_and_nothing_is_kept_for_ends_that_are_quiet() {
    let (mut condenser, now) = (Condenser::default(), begin());
    let notes: Vec<_> = (0..u64::from(BURST) + 3).map(ended).chain([refused(1, 1), refused(1, 2)]).collect();
    run(&mut condenser, &notes, now);
    let mut out = Vec::new();
    condenser.finish(now, &mut out);
    assert!(matches!(out[..], [Condensed::Many(_), Condensed::More(_, 1, 2)]), "{out:?}");
    timeout(&mut condenser, now + Duration::from_secs(3600));
    assert!(condenser.paces.is_empty() && condenser.floods.is_empty());
}
