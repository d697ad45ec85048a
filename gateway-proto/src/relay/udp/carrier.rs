//! Whether datagrams to a relay travel over UDP: the gateway's side.
//!
//! ```text
//!   off ──session──▶ trying ──full round trip──▶ up
//!                      ▲ │ no answer              │ silence
//!                      │ ▼                        ▼
//!                     waiting (2 s … 60 s, jittered, for ever)
//! ```
//!
//! A try is a handful of pings as long as the longest datagram, then as long as the shortest one that QUIC needs, and of empty ones; UDP is used when one of
//! the long ones came back from an address the relay believes, and an empty one. While data moves, a ping leaves every 250 ms, as
//! long as the longest datagram since the last one (beside little traffic only one in a second is); an answer
//! overdue makes them quicker and doubles the datagrams onto the WebSocket, and 700 ms of questions without any answer end the use of UDP: the WebSocket, open all the time, carries on before
//! QUIC's own timers have backed off far. Loss alone does not do that: of seven pings one comes back even when a third of the packets is lost.
//! After a fall, several answers in a row are wanted instead of one. Where much is lost, and TLS to the same relay is better, UDP is left too, and rests for longer ([`weigh`]).
//!
//! An answer speaks for its own length and below: a small one says nothing about a large ping that stays unanswered. For an empty one only another empty one
//! speaks: there are ways that drop short datagrams, and a tunnel needs those as well, so one a second is asked beside the others while data moves. While
//! an answer is overdue the longest unanswered length is asked again, and beside it, in turn, the shortest that QUIC needs and none at all, or none at all each
//! time when that is missed. When the long ones die and the shortest that QUIC needs passes, UDP goes on with that; when only less
//! passes, or only the long ones do, UDP is left, for reasons of their own.
//!
//! Sans-IO: the owner sends the [`Ping`]s, hands in the answers and the time, and asks [`UdpCarrier::limit`] for each batch.

mod acts;
mod reason;
mod up;
mod weigh;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

pub use reason::CarrierReason;
use up::{ACTIVE_FOR, Up, patience};
use weigh::Weigher;

use super::{Answer, LIMIT_IN_DOUBT, MAX_PAYLOAD, MIN_PAYLOAD};
use crate::backoff::Backoff;

/// Pings of a try: when, and how much they carry.
const TRY: [(Duration, usize); 9] = [
    (Duration::ZERO, MAX_PAYLOAD),
    (Duration::ZERO, 0),
    (Duration::from_millis(150), MAX_PAYLOAD),
    (Duration::from_millis(250), 0),
    (Duration::from_millis(400), MIN_PAYLOAD),
    (Duration::from_millis(700), MAX_PAYLOAD),
    (Duration::from_millis(850), 0),
    (Duration::from_millis(1000), MIN_PAYLOAD),
    (Duration::from_millis(1300), MIN_PAYLOAD),
];
/// A try takes no longer.
const TRY_FOR: Duration = Duration::from_secs(2);
/// Answers wanted in a row after UDP had stopped passing.
const ANSWERS_AFTER_A_FALL: u32 = 4;
/// First and longest pause between tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// The same after UDP lost too much: each try costs what it loses until that is seen again.
const RESTS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));
/// UDP that passed for so long has proved itself: the next fall waits briefly again.
const PROVEN: Duration = Duration::from_secs(60);
/// Questions without any answer for this long, and twice the round trip, end the use of UDP.
const SILENCE: Duration = Duration::from_millis(700);
/// Whatever the round trip, silence is not borne longer than this.
const MAX_SILENCE: Duration = Duration::from_millis(1_500);
/// Where only short datagrams passed, the longest is tried again this often.
const STRETCH: Duration = Duration::from_secs(60);
/// And so long after the long ones were given up: it may have been loss.
const FIRST_STRETCH: Duration = Duration::from_secs(2);
/// Unanswered pings remembered.
const REMEMBERED: usize = 64;

/// A ping to send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Its number.
    pub id: u64,
    /// The challenge it echoes.
    pub echo: u64,
    /// Bytes behind the header.
    pub payload: usize,
}

#[derive(Debug)]
enum Stage {
    Off,
    Waiting { until: Instant },
    Trying { since: Instant, sent: usize, answers: u32, proven: usize, heard: Option<usize>, heard_empty: bool },
    Up(Up),
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    id: u64,
    at: Instant,
    payload: usize,
}

/// See the module's description.
#[derive(Debug)]
pub struct UdpCarrier {
    stage: Stage,
    reason: CarrierReason,
    backoff: Backoff,
    rests: Backoff,
    weigher: Weigher,
    wanted: u32,
    failed_tries: u32,
    next_id: u64,
    echo: u64,
    rtt: Option<Duration>,
    unanswered: VecDeque<Sent>,
    outgoing: VecDeque<Ping>,
    changes: BTreeMap<CarrierReason, u64>,
}

impl Default for UdpCarrier {
    fn default() -> Self {
        Self {
            stage: Stage::Off,
            reason: CarrierReason::NotOffered,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
            rests: Backoff::new(RESTS.0, RESTS.1),
            weigher: Weigher::default(),
            wanted: 1,
            failed_tries: 0,
            next_id: 0,
            echo: 0,
            rtt: None,
            unanswered: VecDeque::new(),
            outgoing: VecDeque::new(),
            changes: BTreeMap::new(),
        }
    }
}

impl UdpCarrier {
    /// A session and an address are there: try.
    pub fn start(&mut self, now: Instant) {
        self.echo = 0;
        self.backoff.reset();
        self.rests.reset();
        self.weigher.start_over();
        self.wanted = 1;
        self.reason = CarrierReason::Trying;
        self.try_it(now);
    }

    /// There is no session any more, or never was, or no address: nothing goes over UDP.
    pub fn stop(&mut self, reason: CarrierReason) {
        self.leave(Stage::Off, reason);
        self.rtt = None;
    }

    /// The longest sealed datagram that UDP carries now; `None`: use the WebSocket.
    pub fn limit(&self) -> Option<usize> {
        match &self.stage {
            Stage::Up(up) => Some(up.proven),
            Stage::Off | Stage::Waiting { .. } | Stage::Trying { .. } => None,
        }
    }

    /// An answer is overdue: what goes over UDP is to go over the WebSocket as well, until one comes or UDP is left.
    pub fn in_doubt(&self, now: Instant) -> bool {
        let overdue = |oldest: &Sent| now >= oldest.at + patience(self.rtt);
        matches!(self.stage, Stage::Up(_)) && self.unanswered.front().is_some_and(overdue)
    }

    /// What to tell the relay with [`ClientFrame::UdpLimit`](crate::relay::ClientFrame::UdpLimit).
    pub fn limit_to_tell(&self, now: Instant) -> u16 {
        let limit = self.limit().map_or(0, |limit| limit as u16);
        if self.in_doubt(now) { limit | LIMIT_IN_DOUBT } else { limit }
    }

    /// Why it is as it is.
    pub fn reason(&self) -> CarrierReason {
        self.reason
    }

    /// How often UDP took over from TLS and the other way round, by the reason; an end of the session is none. At most one entry for each reason.
    pub fn changes(&self) -> &BTreeMap<CarrierReason, u64> {
        &self.changes
    }

    /// Counts tries that brought nothing: where the relay has several addresses, the next may do.
    pub fn failed_tries(&self) -> u32 {
        self.failed_tries
    }

    /// The tunnel counts losses of what goes over this relay: UDP is left sooner, if TLS is better.
    pub fn blame(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Up(_)) {
            self.weigher.blame(now);
        }
    }

    /// The answer to a ping of the WebSocket. False: the carrier did not ask for it ([`Self::poll_link_ping`]).
    pub fn link_answered(&mut self, bytes: [u8; 8], now: Instant) -> bool {
        self.weigher.link_answered(bytes, now)
    }

    /// Data moves between us and the relay, either way and on either carrier, as [`Murmurs`](super::Murmurs) say; `payload` is the longest
    /// sealed datagram that went or came over UDP, 0 for none. True when a ping is due earlier than [`Self::poll_timeout`] said before.
    pub fn active(&mut self, payload: usize, now: Instant) -> bool {
        let Stage::Up(up) = &mut self.stage else { return false };
        let was_idle = up.active_until <= now;
        up.active_until = now + ACTIVE_FOR;
        up.longest = up.longest.max(payload);
        up.moved = up.moved.saturating_add(payload);
        was_idle
    }

    /// An authentic pong of `payload` bytes behind its header.
    pub fn answered(&mut self, answer: Answer, payload: usize, now: Instant) {
        self.weigher.answered(answer.id);
        if let Stage::Up(up) = &mut self.stage
            && up.stretch == Some(answer.id)
        {
            up.stretch = None;
            up.proven = up.proven.max(payload.min(MAX_PAYLOAD));
            self.echo = answer.challenge;
            return;
        }
        let Some(sent) = self.unanswered.iter().find(|sent| sent.id == answer.id).copied() else { return };
        // Older ones say nothing any more, unless they were longer, or empty: one came back that left after them.
        let speaks_for = |length: usize| length == sent.payload || (length > 0 && length < sent.payload);
        self.unanswered.retain(|other| other.at > sent.at || !speaks_for(other.payload));
        let sample = now.saturating_duration_since(sent.at);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        let new_challenge = std::mem::replace(&mut self.echo, answer.challenge) != answer.challenge;
        let proves = sent.payload.min(payload);
        // Of an empty one nothing that left beside it tells: only what left later shows that the way still passes others.
        let left_before = |oldest: &&Sent| oldest.at < sent.at || (oldest.at == sent.at && oldest.payload > 0);
        let oldest = self.unanswered.front().filter(left_before).map(|oldest| oldest.id);
        match &mut self.stage {
            Stage::Trying { answers, proven, heard, heard_empty, .. } => {
                let is_long = sent.payload >= MIN_PAYLOAD;
                let is_first = heard.is_none();
                *heard = (*heard).max(Some(proves));
                *heard_empty |= !is_long;
                if answer.validated && is_long {
                    *answers += 1;
                    *proven = proves.max(*proven);
                }
                let enough = *answers >= self.wanted;
                if enough && *heard_empty && *proven >= MIN_PAYLOAD {
                    let proven = *proven;
                    self.rise(proven, now);
                } else if is_long && !enough && (answer.validated || new_challenge) {
                    self.ping(sent.payload, now);
                } else if !is_long && is_first && !answer.validated && new_challenge {
                    // It overtook that of the long one that left with it, which brings no other challenge.
                    self.ping(MAX_PAYLOAD, now);
                }
            }
            Stage::Up(up) => {
                if let Some(oldest) = oldest {
                    up.passed = Some((oldest, proves.max(up.passed_since(oldest).unwrap_or(0))));
                }
                // The relay sees us at a new address, and wants it proved before it sends there.
                if !answer.validated && new_challenge {
                    self.ping(0, now);
                }
            }
            Stage::Off | Stage::Waiting { .. } => {}
        }
    }

    /// Acts on the time. `random` is any uniformly random number.
    pub fn handle_timeout(&mut self, now: Instant, random: u32) {
        match &mut self.stage {
            Stage::Off => {}
            Stage::Waiting { until } => {
                if now >= *until {
                    self.try_it(now);
                }
            }
            Stage::Trying { since, sent, heard, heard_empty, .. } => {
                let elapsed = now.saturating_duration_since(*since);
                if elapsed >= TRY_FOR {
                    let former = [
                        CarrierReason::StoppedPassing,
                        CarrierReason::OnlySmallPackets,
                        CarrierReason::OnlyLargePackets,
                        CarrierReason::Lossy,
                    ];
                    let reason = match *heard {
                        Some(longest) if longest < MIN_PAYLOAD => CarrierReason::OnlySmallPackets,
                        Some(_) if !*heard_empty => CarrierReason::OnlyLargePackets,
                        Some(_) | None if former.contains(&self.reason) => CarrierReason::StoppedPassing,
                        Some(_) | None => CarrierReason::DoesNotPass,
                    };
                    self.failed_tries = self.failed_tries.wrapping_add(1);
                    self.pause(reason, now, random);
                } else if let Some((at, payload)) = TRY.get(*sent)
                    && elapsed >= *at
                {
                    *sent += 1;
                    self.ping(*payload, now);
                }
            }
            Stage::Up(up) => {
                let rtt = self.rtt;
                if now.saturating_duration_since(up.since) >= PROVEN {
                    self.weigher.trust();
                }
                if self.weigher.handle_timeout(rtt, up.active_until > now, now, random) {
                    return self.rest(now, random);
                }
                let silent = self.unanswered.front().copied().filter(|oldest| now >= oldest.at + silence(rtt));
                let Some(oldest) = silent else { return self.ping_if_due(now) };
                let passed = up.passed_since(oldest.id);
                if let Some(passed) = passed.filter(|passed| *passed >= MIN_PAYLOAD && oldest.payload > 0) {
                    up.proven = passed;
                    up.passed = None;
                    up.stretch = None;
                    up.stretch_at = now + FIRST_STRETCH;
                    self.unanswered.retain(|sent| sent.payload <= passed);
                    self.weigher.clear();
                    return self.ping_if_due(now);
                }
                if now.saturating_duration_since(up.since) >= PROVEN {
                    self.backoff.reset();
                }
                self.wanted = ANSWERS_AFTER_A_FALL;
                let reason = match passed {
                    Some(_) if oldest.payload == 0 => CarrierReason::OnlyLargePackets,
                    Some(_) => CarrierReason::OnlySmallPackets,
                    None => CarrierReason::StoppedPassing,
                };
                self.pause(reason, now, random);
            }
        }
    }

    /// When [`Self::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Off => None,
            Stage::Waiting { until } => Some(*until),
            Stage::Trying { since, sent, .. } => Some(*since + TRY.get(*sent).map_or(TRY_FOR, |(at, _)| *at)),
            Stage::Up(up) => {
                let leave = self.unanswered.front().map(|oldest| oldest.at + silence(self.rtt));
                let stretch = (up.proven < MAX_PAYLOAD).then_some(up.stretch_at);
                let ping = Some(up.ping_due(&self.unanswered, self.rtt));
                [ping, leave, stretch, self.weigher.poll_timeout(self.rtt)].into_iter().flatten().min()
            }
        }
    }

    /// The next ping to send.
    pub fn poll_transmit(&mut self) -> Option<Ping> {
        self.outgoing.pop_front()
    }

    /// The next ping to send over the WebSocket, to compare it with UDP; its answer is for [`Self::link_answered`].
    pub fn poll_link_ping(&mut self) -> Option<[u8; 8]> {
        self.weigher.poll_link_ping()
    }
}

fn silence(rtt: Option<Duration>) -> Duration {
    (SILENCE + rtt.unwrap_or_default() * 2).min(MAX_SILENCE)
}

#[cfg(test)]
mod tests;
