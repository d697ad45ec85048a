//! Whether the selected direct path still answers.

use std::time::{Duration, Instant};

/// Between heartbeats while streams are open: an engine's acknowledgement timer runs.
const ACTIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Between heartbeats when idle: below the 30 s after which common NATs forget a mapping.
const IDLE_INTERVAL: Duration = Duration::from_secs(24);
/// Whoever asked last waits so much longer when idle, so that the peer asks next: either question and its answer hold the
/// path open for both. The side that does not lead waits twice as much, so that two that asked in one moment part again.
const BEHIND: Duration = Duration::from_secs(2);

/// Between heartbeats once an answer is missing: loss is told from death by asking more often. Both sizes are asked in the same
/// instant: what befalls one and not the other is then not a matter of time.
const DOUBT_INTERVAL: Duration = Duration::from_millis(250);

/// Silence that counts as one miss; on a path of long round trips, one and a half of them.
const MIN_MISS: Duration = Duration::from_millis(500);
/// The same when the peer was just heard from another address, or our own network changed.
const MIN_SUSPECT_MISS: Duration = Duration::from_millis(100);
/// A miss that leads to duplicates costs little, so it never waits for longer: an engine's timer runs.
const MAX_EARLY_MISS: Duration = Duration::from_millis(750);
/// The last one costs the path.
const MAX_LAST_MISS: Duration = Duration::from_secs(2);
const LAST_SUSPECT_MISS: Duration = Duration::from_secs(1);

/// Misses after which data is duplicated onto the relay.
const DISTRUST_AFTER: u32 = 2;

/// Misses after which the path is left.
const DEMOTE_AFTER: u32 = 3;

/// Beside one heartbeat in so many one of full size is sent: small packets may pass where data does not.
const PADDED_EVERY: u32 = 10;
/// The same when idle, where such a heartbeat is most of what an idle path costs.
const PADDED_EVERY_IDLE: u32 = 40;

/// What has to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Send a ping.
    Ping {
        /// At full size.
        padded: bool,
    },
    /// First miss: look for other ways.
    Doubt,
    /// First miss after the peer was heard elsewhere: it has moved there, unless it answers at once.
    Moved,
    /// Duplicate data.
    Distrust,
    /// Leave the path.
    Demote {
        /// What has no answer.
        missing: Missing,
    },
}

/// When the first ping of each size was sent whose answer is missing, of those sent by plan. An answer speaks for its own size only:
/// there are paths that lose what is large, and such that lose what is small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) small: Option<Instant>,
    pub(super) full: Option<Instant>,
}

impl Missing {
    fn of(&mut self, padded: bool) -> &mut Option<Instant> {
        if padded { &mut self.full } else { &mut self.small }
    }

    fn since(&self) -> Option<Instant> {
        [self.small, self.full].into_iter().flatten().min()
    }
}

/// The heartbeat of one selected path.
#[derive(Debug)]
pub(super) struct Heartbeat {
    leads: bool,
    next_ping_at: Instant,
    silence: Option<Silence>,
    sent: u32,
    /// When the last one went.
    asked_at: Option<Instant>,
    /// The size of the next ping, whatever the plan; true is full size.
    next_size: Option<bool>,
    /// When the last one of full size went.
    full_sent_at: Option<Instant>,
    /// The next ping is asked with little patience, because of this.
    suspicion: Option<Suspicion>,
}

/// Why the peer may not be there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// It was heard from another address.
    HeardElsewhere,
    /// Our own network changed.
    NetworkChanged,
    /// Its packets come another way.
    PeerDoubts,
    /// The handshake of a tunnel has no answer.
    DialledInVain,
    /// The tunnel loses large packets: small ones may pass, and hide it.
    LargeLost {
        /// The round trip that the tunnel measures, with the queue that its data makes: the answer waits in it too.
        queued_rtt: Duration,
    },
}

/// Since the oldest ping without an answer.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    missing: Missing,
    suspicion: Option<Suspicion>,
    /// Pings sent since the last miss.
    asked: u32,
    misses: u32,
    /// Counted from the last miss, so that a process that stood still asks again before it gives a path up.
    next_miss_at: Instant,
}

impl Heartbeat {
    /// For a path just promoted: the proof was its first heartbeat. One of the two sides leads.
    pub(super) fn new(leads: bool, active: bool, now: Instant) -> Self {
        Self {
            leads,
            next_ping_at: now + interval(active, leads),
            silence: None,
            sent: 0,
            asked_at: None,
            next_size: None,
            full_sent_at: None,
            suspicion: None,
        }
    }

    /// Whether data has to be duplicated.
    pub(super) fn is_distrusted(&self) -> bool {
        self.silence.is_some_and(|silence| silence.misses >= DISTRUST_AFTER)
    }

    /// When the current silence began, once it counts.
    pub(super) fn doubted_since(&self) -> Option<Instant> {
        self.silence.filter(|silence| silence.misses > 0).map(|silence| silence.since)
    }

    /// Streams opened or closed. The first after a while asks at once; where each message is a connection of its own, one
    /// question a second is enough for all of them.
    pub(super) fn set_active(&mut self, active: bool, now: Instant) {
        if active {
            let due = self.asked_at.map_or(now, |at| now.max(at + ACTIVE_INTERVAL));
            self.next_ping_at = self.next_ping_at.min(due);
        }
    }

    /// Somebody misses an answer: asked now.
    pub(super) fn ask(&mut self, now: Instant) {
        self.next_ping_at = self.next_ping_at.min(now);
    }

    /// The peer asked on this path: when idle, our own question can wait its turn. Not one that is due: who ordered it misses
    /// something on our way to the peer, and its question proves the other one.
    pub(super) fn peer_asked(&mut self, active: bool, now: Instant) {
        if !active && self.next_ping_at > now && self.silence.is_none() && self.suspicion.is_none() {
            self.next_ping_at = self.next_ping_at.max(now + IDLE_INTERVAL);
        }
    }

    /// Is the peer still here? Asked now, with little patience.
    pub(super) fn suspect(&mut self, suspicion: Suspicion, rtt: Duration, now: Instant) {
        self.next_ping_at = self.next_ping_at.min(now);
        self.suspicion = Some(suspicion);
        if let Some(silence) = &mut self.silence
            && silence.misses < DISTRUST_AFTER
        {
            silence.suspicion = Some(suspicion);
            let patience = patience(silence.misses, silence.suspicion, rtt);
            silence.next_miss_at = silence.next_miss_at.min(now + patience);
        }
    }

    /// Large packets were lost: is one of full size answered? Asked at most once a second, and not beside another question.
    /// `queued_rtt` is the tunnel's own round trip of late.
    pub(super) fn suspect_size(&mut self, rtt: Duration, queued_rtt: Duration, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < ACTIVE_INTERVAL;
        if self.silence.is_none() && !self.full_sent_at.is_some_and(is_recent) {
            self.next_size = Some(true);
            self.suspect(Suspicion::LargeLost { queued_rtt }, rtt, now);
        }
    }

    /// Whether the peer seems to have moved: it was heard elsewhere, and an answer is overdue here.
    pub(super) fn seems_moved(&self) -> bool {
        let elsewhere = |silence: Silence| silence.suspicion == Some(Suspicion::HeardElsewhere);
        self.silence.is_some_and(|silence| elsewhere(silence) && silence.misses > 0)
    }

    /// The next moment at which [`Self::poll`] has something to say.
    pub(super) fn next_at(&self) -> Instant {
        self.silence.map_or(self.next_ping_at, |silence| self.next_ping_at.min(silence.next_miss_at))
    }

    /// What is due; call until `None`.
    pub(super) fn poll(&mut self, rtt: Duration, active: bool, now: Instant) -> Option<Beat> {
        if let Some(silence) = &mut self.silence
            && silence.misses < DEMOTE_AFTER
            && now >= silence.next_miss_at
        {
            // Nobody answers what was not asked.
            if silence.asked == 0 {
                silence.next_miss_at = now + patience(silence.misses, silence.suspicion, rtt);
                self.next_ping_at = self.next_ping_at.min(now);
                return self.ping_if_due(rtt, active, now);
            }
            silence.asked = 0;
            silence.misses += 1;
            silence.next_miss_at = now + patience(silence.misses, silence.suspicion, rtt);
            return Some(match silence.misses {
                DEMOTE_AFTER => Beat::Demote { missing: silence.missing },
                DISTRUST_AFTER => Beat::Distrust,
                _ => {
                    self.next_ping_at = now;
                    match silence.suspicion {
                        Some(Suspicion::HeardElsewhere) => Beat::Moved,
                        Some(
                            Suspicion::NetworkChanged
                            | Suspicion::PeerDoubts
                            | Suspicion::DialledInVain
                            | Suspicion::LargeLost { .. },
                        )
                        | None => Beat::Doubt,
                    }
                }
            });
        }
        self.ping_if_due(rtt, active, now)
    }

    fn ping_if_due(&mut self, rtt: Duration, active: bool, now: Instant) -> Option<Beat> {
        if now < self.next_ping_at {
            return None;
        }
        let doubted = self.silence.filter(|silence| silence.misses > 0);
        let ordered = self.next_size.take();
        // In doubt what is missing is asked first, in case that the other one may not leave.
        let first = doubted.is_some_and(|silence| silence.missing.small.is_none());
        let padded = ordered.unwrap_or(first);
        if padded {
            self.full_sent_at = Some(now);
        } else {
            self.sent = self.sent.wrapping_add(1);
        }
        let every = if active { PADDED_EVERY } else { PADDED_EVERY_IDLE };
        let doubted = doubted.is_some();
        if doubted && ordered.is_none() {
            self.next_size = Some(!padded);
        } else if !doubted && !padded && self.sent.is_multiple_of(every) {
            self.next_size = Some(true);
        }
        self.asked_at = Some(now);
        self.next_ping_at = match (self.next_size, doubted) {
            (Some(_), _) => now,
            (None, true) => now + DOUBT_INTERVAL,
            (None, false) => now + interval(active, self.leads),
        };
        let suspicion = self.suspicion.take();
        let silence = self.silence.get_or_insert(Silence {
            since: now,
            missing: Missing::default(),
            suspicion,
            asked: 0,
            misses: 0,
            next_miss_at: now + patience(0, suspicion, rtt),
        });
        silence.asked = silence.asked.saturating_add(1);
        // A probe asked while in doubt is only a second opinion; one sent by plan must be answered in kind.
        if !doubted {
            silence.missing.of(padded).get_or_insert(now);
        }
        Some(Beat::Ping { padded })
    }

    /// The ping of that size that [`Self::poll`] just asked for was kept back, because too many left lately: no answer to it is
    /// missing, and it is asked again in a moment.
    pub(super) fn not_sent(&mut self, padded: bool, now: Instant) {
        self.next_ping_at = now + DOUBT_INTERVAL;
        if !padded {
            self.sent = self.sent.wrapping_sub(1);
        }
        let Some(silence) = &mut self.silence else { return };
        silence.asked = silence.asked.saturating_sub(1);
        if silence.misses > 0 {
            // The other one would be kept back too.
            self.next_size = None;
            return;
        }
        self.next_size = padded.then_some(true);
        let missing = silence.missing.of(padded);
        if *missing == Some(now) {
            *missing = None;
        }
        if silence.missing.since().is_none() {
            self.suspicion = silence.suspicion;
            self.silence = None;
        }
    }

    /// An answer of that size came. True when the path was distrusted and is no more.
    pub(super) fn answered(&mut self, padded: bool, active: bool, now: Instant) -> bool {
        let Some(silence) = &mut self.silence else { return false };
        *silence.missing.of(padded) = None;
        if let Some(since) = silence.missing.since() {
            // What was asked later has all of its time, too.
            if silence.misses == 0 {
                silence.next_miss_at += since.saturating_duration_since(silence.since);
            }
            silence.since = since;
            return false;
        }
        let missed = silence.misses > 0;
        let was_distrusted = self.is_distrusted();
        self.silence = None;
        if missed {
            self.next_size = None;
            self.next_ping_at = now + interval(active, self.leads);
        }
        was_distrusted
    }
}

/// How long the next miss takes after so many before it.
fn patience(misses: u32, suspicion: Option<Suspicion>, rtt: Duration) -> Duration {
    let (least, most) = match (misses + 1 == DEMOTE_AFTER, suspicion.is_some()) {
        (false, false) => (MIN_MISS, MAX_EARLY_MISS),
        (false, true) => (MIN_SUSPECT_MISS, MAX_EARLY_MISS),
        (true, false) => (MIN_MISS, MAX_LAST_MISS),
        (true, true) => (LAST_SUSPECT_MISS, MAX_LAST_MISS),
    };
    let rtt = if let Some(Suspicion::LargeLost { queued_rtt }) = suspicion { rtt.max(queued_rtt) } else { rtt };
    (rtt * 3 / 2).clamp(least, most)
}

fn interval(active: bool, leads: bool) -> Duration {
    match (active, leads) {
        (true, _) => ACTIVE_INTERVAL,
        (false, true) => IDLE_INTERVAL + BEHIND,
        (false, false) => IDLE_INTERVAL + 2 * BEHIND,
    }
}

#[cfg(test)]
mod tests;
