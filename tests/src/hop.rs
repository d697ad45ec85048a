//! A wire that is worse than the kernel's: delay, jitter, loss, a rate and a largest packet, between two interfaces.
//!
//! The kernels that the tests run on have no netem. A hop stands in a network namespace of its own with two interfaces
//! and no addresses: what comes in on one side goes out on the other, later, or not at all. It sees Ethernet frames, so
//! both ends believe that they share a wire (switch off checksum offload on them: frames must be complete).
//!
//! [`Lane`] decides for one direction and is pure; [`run`] moves the frames. Order is kept. A lane holds
//! [`Shape::queue`] frames at most; what comes on top is lost, as in a router.
//!
//! The shape can be changed while it runs: a line on standard input such as `loss=20 delay=50ms` changes both lanes.

mod frames;

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

pub use frames::run;

/// Ethernet header before the packet.
const ETHERNET: usize = 14;
/// Frames that are not IPv4 or IPv6 (neighbour discovery by ARP) are delayed but never lost.
const IP_TYPES: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// What the hop does to each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Added to every frame.
    pub delay: Duration,
    /// Up to so much more, evenly spread; order is kept.
    pub jitter: Duration,
    /// Packets lost, in per cent.
    pub loss: f64,
    /// Bits per second; 0: no limit.
    pub rate: u64,
    /// Larger IP packets vanish without a word; 0: none.
    pub largest: usize,
    /// Frames that wait at most.
    pub queue: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, rate: 0, largest: 0, queue: 1000 }
    }
}

impl Shape {
    /// The shape with the settings of a line changed.
    pub fn changed(mut self, line: &str) -> anyhow::Result<Self> {
        for word in line.split_whitespace() {
            let accepted = "delay=20ms jitter=5ms loss=1.5 rate=10000000 largest=1280 queue=1000";
            let wrong = || anyhow::anyhow!("'{word}' is not one of {accepted}");
            let (name, value) = word.split_once('=').ok_or_else(wrong)?;
            match name {
                "delay" => self.delay = millis(value).ok_or_else(wrong)?,
                "jitter" => self.jitter = millis(value).ok_or_else(wrong)?,
                "loss" => {
                    let loss: f64 = value.parse().map_err(|_| wrong())?;
                    self.loss = Some(loss).filter(|loss| (0.0..=100.0).contains(loss)).ok_or_else(wrong)?;
                }
                "rate" => self.rate = value.parse().map_err(|_| wrong())?,
                "largest" => self.largest = value.parse().map_err(|_| wrong())?,
                "queue" => self.queue = value.parse().ok().filter(|queue| *queue > 0).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            }
        }
        Ok(self)
    }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        Self::default().changed(line)
    }
}

fn millis(text: &str) -> Option<Duration> {
    let value: f64 = text.strip_suffix("ms")?.parse().ok()?;
    Duration::try_from_secs_f64(value / 1e3).ok()
}

/// One direction: when a frame goes out, or that it is lost.
#[derive(Debug, Clone)]
pub struct Lane {
    random: u64,
    /// When the line is free again.
    free_at: Option<Instant>,
    /// When the last frame goes out; none overtakes it.
    last_at: Option<Instant>,
}

impl Lane {
    /// A lane whose losses and jitter follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: seed, free_at: None, last_at: None }
    }

    /// When this frame goes out; none: it is lost.
    pub fn schedule(&mut self, shape: &Shape, frame: &[u8], now: Instant) -> Option<Instant> {
        let is_packet = frame.get(12..ETHERNET).is_some_and(|kind| IP_TYPES.iter().any(|ip| ip == kind));
        if is_packet {
            if self.share() * 100.0 < shape.loss {
                return None;
            }
            if shape.largest > 0 && frame.len() - ETHERNET > shape.largest {
                return None;
            }
        }
        let sent_at = match shape.rate {
            0 => now,
            rate => {
                let begun = self.free_at.map_or(now, |free_at| free_at.max(now));
                let line = Duration::from_secs_f64(frame.len() as f64 * 8.0 / rate as f64);
                *self.free_at.insert(begun + line)
            }
        };
        let due = sent_at + shape.delay + shape.jitter.mul_f64(self.share());
        let due = self.last_at.map_or(due, |last_at| due.max(last_at));
        self.last_at = Some(due);
        Some(due)
    }

    /// From 0 to 1; SplitMix64.
    fn share(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: usize) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET + length];
        frame[12..14].copy_from_slice(&IP_TYPES[0]);
        frame
    }

    #[test]
    fn a_line_changes_what_it_names_and_nonsense_is_refused() {
        let shape: Shape = "delay=20ms loss=1.5".parse().unwrap();
        assert_eq!((shape.delay, shape.loss), (Duration::from_millis(20), 1.5));
        assert_eq!(shape.changed("largest=1100").unwrap(), Shape { largest: 1100, ..shape });
        for wrong in ["delay=20", "delay=-1ms", "loss=101", "loss=x", "queue=0", "colour=red", "delay"] {
            assert!(wrong.parse::<Shape>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn frames_are_delayed_and_keep_their_order() {
        let (mut lane, now) = (Lane::new(1), Instant::now());
        let shape: Shape = "delay=20ms jitter=10ms".parse().unwrap();
        let mut last = now;
        for _ in 0..1000 {
            let due = lane.schedule(&shape, &packet(100), now).unwrap();
            assert!(due >= last && due >= now + shape.delay && due <= now + shape.delay + shape.jitter);
            last = due;
        }
    }

    #[test]
    fn as_much_is_lost_as_was_asked_for_but_never_a_neighbour_discovery() {
        let (mut lane, now) = (Lane::new(7), Instant::now());
        let shape: Shape = "loss=20".parse().unwrap();
        let lost = (0..10_000).filter(|_| lane.schedule(&shape, &packet(100), now).is_none()).count();
        assert!((1800..2200).contains(&lost), "{lost}");
        let all: Shape = "loss=100".parse().unwrap();
        assert!(lane.schedule(&all, &packet(1), now).is_none());
        let mut arp = packet(28);
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(lane.schedule(&all, &arp, now).is_some());
    }

    #[test]
    fn a_rate_spreads_a_burst_and_a_black_hole_eats_the_large_ones() {
        let (mut lane, now) = (Lane::new(1), Instant::now());
        let shape: Shape = "rate=1000000 largest=1100".parse().unwrap();
        let due = (0..100).filter_map(|_| lane.schedule(&shape, &packet(986), now)).last().unwrap();
        let took = (due - now).as_secs_f64();
        assert!((0.79..0.81).contains(&took), "100 frames of 8,000 bits at 1 Mbit/s took {took} s");
        assert!(lane.schedule(&shape, &packet(1101), now).is_none());
        assert!(lane.schedule(&shape, &packet(1100), now).is_some());
    }
}
