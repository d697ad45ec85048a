//! Whether UDP to the relay loses so much that TLS to the same relay is better.
//!
//! The pings say what UDP loses, out and back together, so one in five is borne: one in ten each way. A ping that is lost
//! weighs as much as four that are answered, and what is summed up so must be no chance; less of it is enough when the tunnel counts losses too
//! ([`Weigher::blame`]), or when UDP was left for this before. That alone changes nothing: TLS may be no better, and TCP that loses keeps
//! everything waiting behind what it lost. So from the first lost ping on the WebSocket is pinged as well, and UDP is left only
//! when three times as much is lost over it as is late over TLS. Where TLS is no better the question rests, longer each time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::backoff::Backoff;

/// A lost ping counts as much as so many that are answered.
const LOST: u32 = 4;
/// The score that is no chance by itself, and with a reason to believe it: two lost ones.
const ENOUGH: u32 = 40;
const ENOUGH_WITH_REASON: u32 = 8;
/// A reason lasts so long.
const REASON_FOR: Duration = Duration::from_secs(10);
/// A ping not answered for so long, and two round trips, is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// The WebSocket is pinged until so long after a lost ping.
const WEIGHS_FOR: Duration = Duration::from_secs(5);
/// Between two of its pings: with those over UDP fewer than a relay answers in a second.
const LINK_PING: Duration = Duration::from_millis(200);
/// A ping that takes longer than this, and twice the shortest round trip, waited for TCP to send something again.
const LATE_AFTER: Duration = Duration::from_millis(150);
/// Before one was answered.
const FIRST_LATE_AFTER: Duration = Duration::from_secs(1);
/// Pings of the WebSocket that say what TLS is worth; fewer when UDP was left before.
const LINK_PINGS: u32 = 20;
const LINK_PINGS_AGAIN: u32 = 5;
/// UDP must lose so many times as much as is late over TLS.
const WORSE: u64 = 3;
/// First and longest pause after TLS was no better.
const PAUSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15 * 60));
/// Pings remembered of each kind.
const REMEMBERED: usize = 64;
/// Of more, the older ones count half.
const SHARE_OF: u32 = 60;
/// The first byte of a ping of the WebSocket for this; the link's own begin with a zero.
const MARK: u8 = 0xff;

#[derive(Debug, Clone, Copy)]
struct Asked {
    id: u64,
    at: Instant,
}

/// What became of the pings of one kind.
#[derive(Debug, Default)]
struct Pings {
    asked: VecDeque<Asked>,
    bad: u32,
    total: u32,
}

impl Pings {
    fn ask(&mut self, id: u64, now: Instant) {
        if self.asked.len() == REMEMBERED {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked { id, at: now });
    }

    /// When it was asked, if nothing was said of it yet.
    fn take(&mut self, id: u64) -> Option<Instant> {
        let at = self.asked.iter().position(|asked| asked.id == id)?;
        self.asked.remove(at).map(|asked| asked.at)
    }

    /// Whether the oldest waits for longer than this; it is not waited for any more.
    fn take_overdue(&mut self, patience: Duration, now: Instant) -> bool {
        let overdue = self.asked.front().is_some_and(|oldest| now >= oldest.at + patience);
        overdue && self.asked.pop_front().is_some()
    }

    fn judge(&mut self, is_bad: bool) {
        if self.total >= SHARE_OF {
            (self.bad, self.total) = (self.bad / 2, self.total / 2);
        }
        self.bad += u32::from(is_bad);
        self.total += 1;
    }

    fn due(&self, patience: Duration) -> Option<Instant> {
        self.asked.front().map(|oldest| oldest.at + patience)
    }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Weigher {
    udp: Pings,
    link: Pings,
    score: u32,
    /// The WebSocket is pinged until then, and next at that time.
    weighs_until: Option<Instant>,
    link_ping_at: Option<Instant>,
    next_link_ping: u64,
    outgoing: VecDeque<[u8; 8]>,
    /// The shortest round trip over the WebSocket.
    link_rtt: Option<Duration>,
    blamed_until: Option<Instant>,
    /// UDP was left for this, and has not proved itself since.
    was_left: bool,
    /// TLS was no better: not asked again before.
    calm_until: Option<Instant>,
    pauses: Backoff,
}

impl Default for Weigher {
    fn default() -> Self {
        Self {
            udp: Pings::default(),
            link: Pings::default(),
            score: 0,
            weighs_until: None,
            link_ping_at: None,
            next_link_ping: 0,
            outgoing: VecDeque::new(),
            link_rtt: None,
            blamed_until: None,
            was_left: false,
            calm_until: None,
            pauses: Backoff::new(PAUSES.0, PAUSES.1),
        }
    }
}

impl Weigher {
    /// A ping left over UDP.
    pub(super) fn sent(&mut self, id: u64, now: Instant) {
        self.udp.ask(id, now);
    }

    /// It was answered.
    pub(super) fn answered(&mut self, id: u64) {
        if self.udp.take(id).is_some() {
            self.score = self.score.saturating_sub(1);
            self.udp.judge(false);
        }
    }

    /// A ping of ours over the WebSocket was answered. False: it is not ours.
    pub(super) fn link_answered(&mut self, bytes: [u8; 8], now: Instant) -> bool {
        if bytes[0] != MARK {
            return false;
        }
        if let Some(at) = self.link.take(u64::from_be_bytes(bytes)) {
            let took = now.saturating_duration_since(at);
            let shortest = self.link_rtt.map_or(took, |shortest| shortest.min(took));
            self.link_rtt = Some(shortest);
            self.link.judge(took > self.late_after());
        }
        true
    }

    /// The tunnel counts losses of what goes over this relay.
    pub(super) fn blame(&mut self, now: Instant) {
        self.blamed_until = Some(now + REASON_FOR);
    }

    /// Acts on the time, while UDP is used. True when it is to be left. `rtt` is that of UDP; while no data moves nothing is begun.
    pub(super) fn handle_timeout(&mut self, rtt: Option<Duration>, moves: bool, now: Instant, random: u32) -> bool {
        while self.udp.take_overdue(lost_after(rtt), now) {
            self.udp.judge(true);
            self.score = (self.score + LOST).min(ENOUGH + LOST);
            if moves && self.calm_until.is_none_or(|until| now >= until) {
                self.weighs_until = Some(now + WEIGHS_FOR);
            }
        }
        while self.link.take_overdue(self.late_after(), now) {
            self.link.judge(true);
        }
        let Some(until) = self.weighs_until else { return false };
        if now >= until {
            self.forget();
            return false;
        }
        if self.link_ping_at.is_none_or(|at| now >= at) {
            self.ping_link(now);
        }
        if !self.is_enough(now) {
            return false;
        }
        let (lost, late) = (u64::from(self.udp.bad), u64::from(self.link.bad));
        if lost * u64::from(self.link.total) >= late * WORSE * u64::from(self.udp.total) {
            self.was_left = true;
            return true;
        }
        self.calm_until = Some(now + self.pauses.next_delay(random));
        self.forget();
        false
    }

    /// When [`Self::handle_timeout`] is wanted next.
    pub(super) fn poll_timeout(&self, rtt: Option<Duration>) -> Option<Instant> {
        let weighs = self.weighs_until.is_some();
        let ping = self.link_ping_at.filter(|_| weighs);
        let lost = self.udp.due(lost_after(rtt));
        [lost, self.link.due(self.late_after()), ping, self.weighs_until].into_iter().flatten().min()
    }

    /// The next ping for the WebSocket.
    pub(super) fn poll_link_ping(&mut self) -> Option<[u8; 8]> {
        self.outgoing.pop_front()
    }

    /// UDP is not used, or is used with shorter datagrams: what was lost says nothing any more.
    pub(super) fn clear(&mut self) {
        self.udp.asked.clear();
        self.forget();
    }

    /// It was used for long without a reason to leave it.
    pub(super) fn trust(&mut self) {
        self.was_left = false;
    }

    /// Another session: another address, another network.
    pub(super) fn start_over(&mut self) {
        *self = Self { next_link_ping: self.next_link_ping, ..Self::default() };
    }

    fn forget(&mut self) {
        (self.score, self.weighs_until, self.link_ping_at, self.blamed_until) = (0, None, None, None);
        (self.udp.bad, self.udp.total) = (0, 0);
        self.link = Pings::default();
        self.outgoing.clear();
    }

    fn is_enough(&self, now: Instant) -> bool {
        let has_reason = self.was_left || self.blamed_until.is_some_and(|until| now < until);
        let enough = if has_reason { ENOUGH_WITH_REASON } else { ENOUGH };
        let link_pings = if self.was_left { LINK_PINGS_AGAIN } else { LINK_PINGS };
        self.score >= enough && self.link.total >= link_pings
    }

    fn ping_link(&mut self, now: Instant) {
        self.next_link_ping = self.next_link_ping.wrapping_add(1);
        let mut bytes = self.next_link_ping.to_be_bytes();
        bytes[0] = MARK;
        self.link.ask(u64::from_be_bytes(bytes), now);
        self.outgoing.push_back(bytes);
        self.link_ping_at = Some(now + LINK_PING);
    }

    fn late_after(&self) -> Duration {
        self.link_rtt.map_or(FIRST_LATE_AFTER, |shortest| shortest * 2 + LATE_AFTER)
    }
}

fn lost_after(rtt: Option<Duration>) -> Duration {
    LOST_AFTER + rtt.unwrap_or_default() * 2
}

#[cfg(test)]
mod tests;
