//! `[limits]` and `[timing]`: numbers and durations in the ranges that make sense.

use std::{num::NonZeroU64, ops::RangeInclusive, time::Duration};

use gateway_net::document::Section;
use gateway_proto::relay::MAX_FRAME;

use super::{Limits, Timing};

/// Upper end of counts, sizes and rates: large enough for any machine, small enough to multiply.
const MANY: u64 = 1 << 40;

impl Limits {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        // A frame larger than the burst could never be sent.
        let frame = MAX_FRAME as u64;
        let limits = &mut section;
        let max_clients = limits.count("max_clients", 10_000, 1..=1_000_000);
        let read = Self {
            max_clients: size(max_clients),
            client_bytes_per_second: NonZeroU64::new(limits.count("client_bytes_per_second", 12_500_000, 0..=MANY)),
            client_burst_bytes: rate(limits, "client_burst_bytes", 4 << 20, frame),
            organization_bytes_per_second: NonZeroU64::new(limits.count("organization_bytes_per_second", 0, 0..=MANY)),
            organization_burst_bytes: rate(limits, "organization_burst_bytes", 16 << 20, frame),
            organization_clients: size(limits.count("organization_clients", max_clients, 1..=1_000_000)),
            queue_datagrams: size(limits.count("queue_datagrams", 256, 1..=65_536)),
            queue_bytes: size(limits.count("queue_bytes", 1 << 20, frame..=1 << 30)),
            signals_per_second: rate(limits, "signals_per_second", 20, 1),
            accept_per_second: rate(limits, "accept_per_second", 200, 1),
            accept_per_second_per_source: rate(limits, "accept_per_second_per_source", 50, 1),
            connections_per_source: size(limits.count("connections_per_source", 1_000, 1..=1_000_000)),
            stun_per_second_per_source: rate(limits, "stun_per_second_per_source", 50, 1),
        };
        section.finish();
        read
    }
}

impl Timing {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        let day = secs(24 * 3600);
        let mut duration = |key, default, range: RangeInclusive<Duration>| section.duration(key, default, range);
        let read = Self {
            admission: duration("admission", secs(10), ms(100)..=secs(60)),
            heartbeat: duration("heartbeat", secs(15), ms(100)..=secs(120)),
            drain_grace: duration("drain_grace", secs(5), ms(0)..=secs(300)),
            expired_link_grace: duration("expired_link_grace", day, ms(0)..=30 * day),
        };
        section.finish();
        read
    }
}

fn rate(section: &mut Section<'_, '_>, key: &'static str, default: u64, least: u64) -> NonZeroU64 {
    NonZeroU64::new(section.count(key, default, least..=MANY)).unwrap_or(NonZeroU64::MIN)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
