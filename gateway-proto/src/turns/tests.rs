#![expect(clippy::disallowed_methods, reason = "a start for virtual time")]

use super::*;

const MS: Duration = Duration::from_millis(1);
/// Of 100 Mbit/s, bytes a second.
const SPEED: u64 = 12_500_000;

fn fast(now: Instant) -> Line {
    Line { window: 1 << 20, round_trip: 20 * MS, drained_at: Some(now) }
}

/// A line that has more to send than it takes.
fn full() -> Line {
    Line { window: SPEED / 50, round_trip: 20 * MS, drained_at: None }
}

fn bulk() -> Place {
    Place { sent: BULK_AFTER, excess: Excess { bytes: BULK_UP_TO, at: None }, ..Place::default() }
}

/// The priority with which a stream sends so many bytes.
fn send(turns: &mut Turns, place: &mut Place, bytes: usize, line: Line, now: Instant) -> i32 {
    if place.sends(bytes) {
        turns.send(place, bytes, line, now);
    }
    place.priority()
}

#[test]
fn where_a_tunnel_keeps_up_who_begins_later_sends_later_and_messages_send_before_all_bulk() {
    let (mut turns, now) = (Turns::default(), Instant::now());
    let [message, transfer, later_transfer, later_message] = [Place::default(), bulk(), bulk(), Place::default()]
        .map(|mut place| send(&mut turns, &mut place, 10_000, fast(now), now));
    let order = [message, later_message, transfer, later_transfer];
    assert!(order.is_sorted_by(|before, after| before > after), "{order:?}");
}

#[test]
fn a_stream_keeps_its_place_for_a_turn_however_small_its_pieces_are() {
    let (mut turns, now) = (Turns::default(), Instant::now());
    let mut small = Place::default();
    let first = send(&mut turns, &mut small, 1024, fast(now), now);
    let mut last_other = first;
    for _ in 1..64 {
        last_other = send(&mut turns, &mut Place::default(), TURN_LEN, fast(now), now);
        assert_eq!(send(&mut turns, &mut small, 1024, fast(now), now), first);
    }
    let next = send(&mut turns, &mut small, 1, fast(now), now);
    assert!(next < last_other, "it has had its turn");
}

#[test]
fn where_a_tunnel_does_not_keep_up_or_the_line_is_slow_all_that_begin_share_a_place() {
    let (mut turns, now) = (Turns::default(), Instant::now());
    let slow = Line { window: 100 << 10, ..fast(now) };
    let full = Line { drained_at: Some(now - 6 * MS), ..fast(now) };
    let new_path = Line { drained_at: None, ..fast(now) };
    for stream in [Place::default, bulk] {
        let places = [fast(now), slow, full, new_path].map(|line| send(&mut turns, &mut stream(), 10_000, line, now));
        assert_eq!(places, [places[0]; 4], "and none passes those that came while it kept up");
    }
    assert!(Line { round_trip: Duration::ZERO, ..slow }.speed() >= FAST, "a round trip of no time divides nothing");
}

#[test]
fn turns_end_without_a_priority_that_passes_into_the_other_rank() {
    let (mut turns, now) = (Turns { messages: PLACES - 2, bulk: PLACES - 2, ..Turns::default() }, Instant::now());
    for (stream, last) in [(Place::default as fn() -> Place, 1 - PLACES), (bulk, i32::MIN + 1)] {
        let priorities = [(); 2].map(|()| send(&mut turns, &mut stream(), TURN_LEN, fast(now), now));
        assert_eq!(priorities, [last; 2]);
    }
}

#[test]
fn a_conversation_that_is_kept_open_stays_one_however_much_it_has_sent() {
    let (mut turns, mut now) = (Turns::default(), Instant::now());
    let mut conversation = Place::default();
    for _ in 0..10_000 {
        // 500 kB a second, 100 MB in all.
        send(&mut turns, &mut conversation, 10_000, full(), now);
        assert_eq!(conversation.rank, Rank::Message);
        now += 20 * MS;
    }
}

#[test]
fn a_transfer_is_bulk_from_its_first_mib_to_its_end_and_what_talks_afterwards_goes_before_bulk_again() {
    let (mut turns, mut now) = (Turns::default(), Instant::now());
    let mut stream = Place::default();
    for sent in 1..=1000 {
        send(&mut turns, &mut stream, TURN_LEN - 1, full(), now);
        // 1 MiB is 16 turns, and as long as those take the line carries a sixteenth off.
        let is_message = stream.rank == Rank::Message;
        assert!(if sent < 16 { is_message } else { sent < 20 || !is_message }, "in its turn {sent}");
        // All of the line.
        now += Duration::from_micros(5243);
    }
    let talks_from = now;
    while stream.rank == Rank::Bulk {
        // So little that its last turn would last for minutes.
        send(&mut turns, &mut stream, 100, full(), now);
        now += 100 * MS;
        assert!(now - talks_from < Duration::from_secs(3), "it has not been a transfer for long");
    }
}

#[test]
fn a_long_message_of_a_conversation_goes_before_bulk_as_a_whole() {
    let (mut turns, mut now) = (Turns::default(), Instant::now());
    let [mut long, mut other] = [(); 2].map(|()| Place { sent: BULK_AFTER, ..Place::default() });
    for _ in 0..20 {
        for _ in 0..14 {
            send(&mut turns, &mut long, TURN_LEN, full(), now);
            assert_eq!(long.rank, Rank::Message);
        }
        send(&mut turns, &mut other, 2000, full(), now);
        assert_eq!(other.rank, Rank::Message, "and stops no other conversation");
        now += Duration::from_secs(2);
    }
}

#[test]
fn a_tunnel_that_was_never_full_makes_no_transfer_of_a_conversation() {
    let (mut turns, mut now) = (Turns::default(), Instant::now());
    let mut conversation = Place::default();
    for _ in 0..1000 {
        // As congestion control begins; 500 kB a second.
        let line = Line { window: 12_000, round_trip: 20 * MS, drained_at: Some(now) };
        send(&mut turns, &mut conversation, 10_000, line, now);
        assert_eq!(conversation.rank, Rank::Message);
        now += 20 * MS;
    }
}

#[test]
fn many_conversations_leave_half_the_line_to_bulk() {
    const SECONDS: u64 = 20;
    let (mut turns, start) = (Turns::default(), Instant::now());
    // Each sends a twentieth of the line: together five times as much as it takes.
    let mut talking: Vec<_> = (0..100).map(|_| Place { sent: BULK_AFTER, ..Place::default() }).collect();
    let mut before_bulk = 0;
    let piece = usize::try_from(SPEED / 200).unwrap();
    for at in 0..SECONDS * 1000 {
        let place = &mut talking[usize::try_from(at % 100).unwrap()];
        send(&mut turns, place, piece, full(), start + Duration::from_millis(at));
        before_bulk += if place.rank == Rank::Message { piece as u64 } else { 0 };
    }
    let half = SPEED / 2 * SECONDS;
    assert!(before_bulk <= half + CONVERSATIONS_AHEAD, "{before_bulk} of {half}");
    assert!(before_bulk >= half * 8 / 10, "and they have it: {before_bulk} of {half}");
}

#[test]
fn what_a_stream_has_written_as_bulk_is_counted_when_it_goes_before_bulk_with_it() {
    let (mut turns, now) = (Turns::default(), Instant::now());
    let mut stream = bulk();
    send(&mut turns, &mut stream, 500_000, full(), now);
    assert_eq!((stream.rank, stream.waiting), (Rank::Bulk, 500_000));
    stream.excess.bytes = 0;
    send(&mut turns, &mut stream, 100, full(), now);
    assert_eq!((stream.rank, stream.waiting), (Rank::Message, 0));
    assert_eq!(turns.conversations.bytes, 500_000 + TURN_LEN as u64);
}
