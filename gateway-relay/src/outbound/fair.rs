//! A queue in which no source starves another.
//!
//! Every source has a sub-queue of its own. They are emptied in turn, each by at most one quantum of bytes (deficit round robin). When the
//! whole is full, the room is taken from whoever holds most of it: a source that floods loses its own frames. A source
//! without waiting frames leaves nothing behind, so there are never more sub-queues than frames.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use gateway_proto::relay::{MAX_FRAME, RelayAddress};

#[derive(Debug)]
pub(crate) struct FairQueue {
    sources: HashMap<RelayAddress, Source>,
    /// Sources with waiting frames, the next one first.
    turns: VecDeque<RelayAddress>,
    frames: usize,
    bytes: usize,
    max_frames: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Source {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// What it may still send in this turn.
    credit: usize,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits.
    Queued,
    /// It waits, and so many frames of the source that held most were dropped for it.
    Displaced(usize),
    /// There is no room for it.
    Refused,
}

impl FairQueue {
    pub(crate) fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self { sources: HashMap::new(), turns: VecDeque::new(), frames: 0, bytes: 0, max_frames, max_bytes }
    }

    pub(crate) fn push(&mut self, source: RelayAddress, frame: Bytes) -> Pushed {
        let mut displaced = Vec::new();
        while self.frames >= self.max_frames || self.bytes + frame.len() > self.max_bytes {
            let held = self.sources.get(&source).map_or(0, |source| source.bytes);
            let most = self.sources.iter().max_by_key(|(address, source)| (source.bytes, **address));
            match most {
                // Only who holds more, with the new frame counted, gives way to it.
                Some((&longest, most)) if most.bytes > held + frame.len() => {
                    displaced.extend(self.take_newest(longest).map(|frame| (longest, frame)));
                }
                Some(_) | None => {
                    // Those before have given way in vain.
                    displaced.into_iter().rev().for_each(|(address, frame)| self.append(address, frame));
                    return Pushed::Refused;
                }
            }
        }
        self.append(source, frame);
        if displaced.is_empty() { Pushed::Queued } else { Pushed::Displaced(displaced.len()) }
    }

    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let address = *self.turns.front()?;
        let source = self.sources.get_mut(&address)?;
        if source.credit == 0 {
            source.credit = MAX_FRAME;
        }
        let frame = source.frames.pop_front()?;
        source.bytes -= frame.len();
        self.bytes -= frame.len();
        self.frames -= 1;
        let next = source.frames.front().map(Bytes::len);
        source.credit = source.credit.saturating_sub(frame.len());
        match next {
            None => {
                self.turns.pop_front();
                self.sources.remove(&address);
            }
            Some(length) if length > source.credit => {
                source.credit = 0;
                self.turns.rotate_left(1);
            }
            Some(_) => {}
        }
        Some(frame)
    }

    fn append(&mut self, source: RelayAddress, frame: Bytes) {
        self.frames += 1;
        self.bytes += frame.len();
        let entry = self.sources.entry(source).or_default();
        if entry.frames.is_empty() {
            self.turns.push_back(source);
        }
        entry.bytes += frame.len();
        entry.frames.push_back(frame);
    }

    /// The newest frame, as a router would: what is sent next is what was sent first.
    fn take_newest(&mut self, address: RelayAddress) -> Option<Bytes> {
        let source = self.sources.get_mut(&address)?;
        let frame = source.frames.pop_back()?;
        source.bytes -= frame.len();
        self.bytes -= frame.len();
        self.frames -= 1;
        if source.frames.is_empty() {
            self.sources.remove(&address);
            self.turns.retain(|turn| *turn != address);
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> RelayAddress {
        RelayAddress::from_bytes([number; 32])
    }

    fn frame(of: u8, length: usize) -> Bytes {
        Bytes::from(vec![of; length])
    }

    #[test]
    fn the_frames_of_one_source_stay_in_order() {
        let mut queue = FairQueue::new(8, 1_000);
        for number in 0..5 {
            assert_eq!(queue.push(source(1), frame(number, 10)), Pushed::Queued);
        }
        let order: Vec<u8> = std::iter::from_fn(|| queue.pop()).map(|frame| frame[0]).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
        assert!(queue.sources.is_empty() && queue.turns.is_empty() && queue.bytes == 0 && queue.frames == 0);
    }

    #[test]
    fn a_flood_loses_its_own_frames_and_others_get_their_turn() {
        let mut queue = FairQueue::new(100, 1 << 20);
        let mut refused = 0;
        for _ in 0..1_000 {
            refused += usize::from(queue.push(source(1), frame(1, 10_000)) == Pushed::Refused);
        }
        assert_eq!(refused, 900);
        assert_eq!(queue.push(source(2), frame(2, 100)), Pushed::Displaced(1));
        let waited = std::iter::from_fn(|| queue.pop()).take_while(|frame| frame[0] == 1).count();
        assert!(waited <= MAX_FRAME / 10_000 + 1, "{waited} frames of the flood went first");
    }

    #[test]
    fn bytes_are_shared_out_evenly_whatever_the_frames_are_like() {
        let mut queue = FairQueue::new(10_000, 100 << 20);
        for _ in 0..500 {
            queue.push(source(1), frame(1, 60_000));
        }
        for _ in 0..5_000 {
            queue.push(source(2), frame(2, 1_200));
        }
        let mut sent = [0_usize; 3];
        while sent[1] + sent[2] < 6_000_000 {
            let frame = queue.pop().unwrap();
            sent[usize::from(frame[0])] += frame.len();
        }
        assert!(sent[1].abs_diff(sent[2]) < 600_000, "{sent:?}");
    }

    #[test]
    fn a_frame_larger_than_the_room_displaces_nobody_in_vain() {
        let mut queue = FairQueue::new(10, 1_000);
        assert_eq!(queue.push(source(1), frame(1, 600)), Pushed::Queued);
        assert_eq!(queue.push(source(2), frame(2, 600)), Pushed::Refused);
        assert_eq!(queue.pop().unwrap().len(), 600);
    }

    #[test]
    fn a_frame_for_which_not_enough_can_give_way_displaces_nobody() {
        let mut queue = FairQueue::new(100, 1_000);
        for number in 0..5 {
            assert_eq!(queue.push(source(1), frame(number, 100)), Pushed::Queued);
        }
        for number in 5..9 {
            assert_eq!(queue.push(source(2), frame(number, 120)), Pushed::Queued);
        }
        assert_eq!(queue.push(source(3), frame(9, 450)), Pushed::Refused);
        let mut left: Vec<u8> = std::iter::from_fn(|| queue.pop()).map(|frame| frame[0]).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
