//! Trains of datagrams joined into longer ones.
//!
//! QUIC hands out trains of ten datagrams at most, the kernel takes 64 in one call, and what a call costs hardly depends on
//! the length of its train: at the sender, at a relay and at the receiver. So a full train waits for the one behind it, a
//! few turns of the program at most; whatever has a short end, which is where a message or a window ends, goes at once
//! and takes along what waits. Nothing here reads a clock or a socket.

use std::net::SocketAddr;

use quinn_udp::{EcnCodepoint, Transmit};

/// The longest train: a relay's headers must still fit into what the kernel takes (65 507 bytes).
const MAX_TRAIN: usize = 62_000;
/// A train shorter than this is no bulk.
const WORTH_HOLDING: usize = 8 << 10;

/// What is held: nothing, or full datagrams of one size for one destination.
#[derive(Debug, Default)]
pub(crate) struct Trains {
    held: Option<Held>,
    /// Memory of the last train.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Held {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    segment: usize,
    bytes: Vec<u8>,
    /// Something was added since the last [`Trains::settled`].
    grew: bool,
    /// Nothing can be added any more.
    complete: bool,
}

/// What became of a train that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is held, and more may follow.
    Held,
    /// It is held, and what is held is to be sent now.
    Complete,
    /// It does not go with what is held: that is to be sent first, then this.
    Apart,
    /// Nothing is held, and this is not worth it.
    NotTaken,
}

impl Trains {
    /// Offers a train; `most` datagrams are sent in one call. What is held or complete has been copied.
    pub(crate) fn offer(&mut self, transmit: &Transmit<'_>, most: usize) -> Offered {
        let length = transmit.contents.len();
        let Some(held) = &mut self.held else {
            let Some(segment) = transmit.segment_size.filter(|size| *size > 0 && length.is_multiple_of(*size)) else {
                return Offered::NotTaken;
            };
            if length < WORTH_HOLDING || fits_in(segment, most) < 2 * length {
                return Offered::NotTaken;
            }
            let mut bytes = std::mem::take(&mut self.spare);
            bytes.clear();
            bytes.extend_from_slice(transmit.contents);
            let (destination, ecn) = (transmit.destination, transmit.ecn);
            self.held = Some(Held { destination, ecn, segment, bytes, grew: true, complete: false });
            return Offered::Held;
        };
        let same_size = transmit.segment_size.map_or(length <= held.segment, |size| size == held.segment);
        let goes_with = !held.complete
            && same_size
            && held.destination == transmit.destination
            && held.ecn == transmit.ecn
            && held.bytes.len() + length <= fits_in(held.segment, most);
        if !goes_with {
            return Offered::Apart;
        }
        held.bytes.extend_from_slice(transmit.contents);
        held.grew = true;
        held.complete = !length.is_multiple_of(held.segment) || held.bytes.len() + length > fits_in(held.segment, most);
        if held.complete { Offered::Complete } else { Offered::Held }
    }

    /// What is held.
    pub(crate) fn held(&self) -> Option<Transmit<'_>> {
        self.held.as_ref().map(|held| Transmit {
            destination: held.destination,
            ecn: held.ecn,
            contents: &held.bytes,
            segment_size: Some(held.segment),
            src_ip: None,
        })
    }

    /// What is held was sent.
    pub(crate) fn sent(&mut self) {
        if let Some(held) = self.held.take() {
            self.spare = held.bytes;
        }
    }

    /// Whether nothing was added since this was asked last: more than what is held does not come for now.
    pub(crate) fn settled(&mut self) -> bool {
        self.held.as_mut().is_none_or(|held| held.complete || !std::mem::replace(&mut held.grew, false))
    }
}

/// Bytes of whole datagrams in one call.
fn fits_in(segment: usize, most: usize) -> usize {
    (MAX_TRAIN / segment).min(most) * segment
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1431;

    fn train(contents: &[u8], to: u16) -> Transmit<'_> {
        let destination = SocketAddr::from(([127, 0, 0, 1], to));
        let segment_size = (contents.len() > SIZE).then_some(SIZE);
        Transmit { destination, ecn: None, contents, segment_size, src_ip: None }
    }

    fn held(trains: &Trains) -> Vec<u8> {
        trains.held().map(|held| held.contents.to_vec()).unwrap_or_default()
    }

    #[test]
    fn full_trains_are_joined_until_the_kernel_takes_no_more() {
        let mut trains = Trains::default();
        let full: Vec<Vec<u8>> = (0..4_u8).map(|number| vec![number; 10 * SIZE]).collect();
        for one in &full[..3] {
            assert_eq!(trains.offer(&train(one, 1), 64), Offered::Held);
        }
        assert_eq!(trains.offer(&train(&full[3], 1), 64), Offered::Complete, "a fifth would not fit");
        assert_eq!(held(&trains), full.concat());
        assert_eq!(trains.offer(&train(&full[0], 1), 64), Offered::Apart, "complete is complete");
        trains.sent();
        assert!(trains.held().is_none());
    }

    #[test]
    fn a_short_end_goes_at_once_and_takes_along_what_waits() {
        let mut trains = Trains::default();
        assert_eq!(trains.offer(&train(&[7; 900], 1), 64), Offered::NotTaken, "a message waits for nothing");
        assert_eq!(trains.offer(&train(&[7; 10 * SIZE], 1), 64), Offered::Held);
        assert_eq!(trains.offer(&train(&[8; 900], 1), 64), Offered::Complete);
        assert_eq!(held(&trains).len(), 10 * SIZE + 900);
    }

    #[test]
    fn what_differs_in_destination_size_or_marking_is_apart() {
        let mut trains = Trains::default();
        let full = vec![1; 10 * SIZE];
        assert_eq!(trains.offer(&train(&full, 1), 64), Offered::Held);
        assert_eq!(trains.offer(&train(&full, 2), 64), Offered::Apart);
        let smaller = Transmit { segment_size: Some(SIZE - 1), ..train(&full, 1) };
        assert_eq!(trains.offer(&smaller, 64), Offered::Apart);
        let probe = vec![1; SIZE + 1];
        assert_eq!(trains.offer(&Transmit { segment_size: None, ..train(&probe, 1) }, 64), Offered::Apart);
        let marked = Transmit { ecn: Some(EcnCodepoint::Ect0), ..train(&full, 1) };
        assert_eq!(trains.offer(&marked, 64), Offered::Apart);
        assert_eq!(held(&trains), full, "nothing of them was taken");
    }

    #[test]
    fn a_kernel_that_takes_few_datagrams_gets_no_more_than_these() {
        let mut trains = Trains::default();
        let full = vec![1; 10 * SIZE];
        assert_eq!(trains.offer(&train(&full, 1), 1), Offered::NotTaken);
        assert_eq!(trains.offer(&train(&full, 1), 20), Offered::Held);
        assert_eq!(trains.offer(&train(&full, 1), 20), Offered::Complete);
    }

    #[test]
    fn it_has_settled_when_a_turn_added_nothing() {
        let mut trains = Trains::default();
        assert!(trains.settled(), "nothing is held");
        let full = vec![1; 10 * SIZE];
        trains.offer(&train(&full, 1), 64);
        assert!(!trains.settled());
        trains.offer(&train(&full, 1), 64);
        assert!(!trains.settled());
        assert!(trains.settled());
    }
}
