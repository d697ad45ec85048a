//! Keeps floods out of the log without losing their numbers: pure, driven with batches of notes and the time.
//!
//! - A stream whose opening and end come in one batch has one record, its end.
//! - Each end of a connection has a pace. Openings and ends beyond it are counted and written as one [`Many`] every
//!   [`WINDOW`]: a sender that reconnects thousands of times a second, or a partner who wants to push older records out of the
//!   log, fills it no faster than that.
//! - Of refusals that differ in their stream only, the first is written at once, the others of the next [`FLOOD`] as a number.
//!
//! Drive it with [`handle_notes`](Condenser::handle_notes), and with [`handle_timeout`](Condenser::handle_timeout) at
//! [`poll_timeout`](Condenser::poll_timeout); what is to be written comes out of both. [`finish`](Condenser::finish) at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::note::{Note, Noted, OurReason, Refusal, StreamEnd, StreamEnding, StreamKey, StreamRole};
use crate::id::ConnectionId;

/// Records of openings and ends that one end of a connection may write a second, for long.
pub const PACE: u32 = 100;
/// And at once: an engine that starts and connects all its channels.
pub const BURST: u32 = 2_000;
/// Streams beyond that are written together this often.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Refusals of one kind are written together this often.
pub const FLOOD: Duration = Duration::from_secs(60);
/// Kinds of refusals told apart at a time; further ones are counted together.
pub const MAX_KINDS: usize = 1_024;
/// Ends of connections remembered; the policy bounds those that can open streams, this bounds what is left of others.
const MAX_PACED: usize = 4_096;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condensed {
    /// One thing.
    One(Note),
    /// Many streams.
    Many(Many),
    /// So many more refusals of the kind of this one, the last of them at this time in Unix milliseconds.
    More(Refusal, u64, u64),
}

/// Streams of one end of a connection, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Many {
    /// The connection.
    pub connection: ConnectionId,
    /// Our end.
    pub role: StreamRole,
    /// When the first of them opened or ended, Unix milliseconds.
    pub since: u64,
    /// The last, Unix milliseconds.
    pub until: u64,
    /// Opened.
    pub opened: u64,
    /// Ended, by how.
    pub ended: BTreeMap<StreamEnding, u64>,
    /// Bytes towards the partner.
    pub bytes_sent: u64,
    /// Bytes from the partner.
    pub bytes_received: u64,
    /// Messages that were observed.
    pub messages: u64,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Condenser {
    paces: BTreeMap<(ConnectionId, StreamRole), Pace>,
    floods: BTreeMap<Refusal, Flood>,
    next_due: Option<Instant>,
}

#[derive(Debug)]
struct Pace {
    left: f64,
    filled_at: Instant,
    many: Option<(Many, Instant)>,
}

#[derive(Debug)]
struct Flood {
    more: u64,
    last_at: u64,
    due: Instant,
}

impl Condenser {
    /// Takes what happened since the last time, oldest first.
    pub fn handle_notes(&mut self, notes: &[Note], now: Instant, out: &mut Vec<Condensed>) {
        let ended: BTreeSet<u64> = notes
            .iter()
            .filter_map(|note| match note.what {
                Noted::Ended(key, _) => Some(key.serial),
                Noted::Opened(_) | Noted::Refused(_) => None,
            })
            .collect();
        for note in notes {
            match note.what {
                Noted::Opened(key) if ended.contains(&key.serial) => {}
                Noted::Opened(key) => self.stream(*note, key, None, now, out),
                Noted::Ended(key, end) => self.stream(*note, key, Some(end), now, out),
                Noted::Refused(refusal) => self.refusal(*note, refusal, now, out),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_due
    }

    /// Hands out what was counted for long enough.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Condensed>) {
        self.hand_out(now, |due| due <= now, out);
    }

    /// Hands out everything that was counted.
    pub fn finish(&mut self, now: Instant, out: &mut Vec<Condensed>) {
        self.hand_out(now, |_| true, out);
    }

    fn stream(&mut self, note: Note, key: StreamKey, end: Option<StreamEnd>, now: Instant, out: &mut Vec<Condensed>) {
        let of = (key.connection, key.role);
        if self.paces.len() >= MAX_PACED && !self.paces.contains_key(&of) {
            self.paces.retain(|_, pace| pace.is_needed(now));
        }
        let pace = self.paces.entry(of).or_insert_with(|| Pace { left: BURST.into(), filled_at: now, many: None });
        if pace.takes_one(now) {
            return out.push(Condensed::One(note));
        }
        let (many, due) = pace.many.get_or_insert_with(|| (Many::new(key, note.at), now + WINDOW));
        many.add(note.at, end);
        let due = *due;
        self.due_by(due);
    }

    fn refusal(&mut self, note: Note, refusal: Refusal, now: Instant, out: &mut Vec<Condensed>) {
        let mut kind = refusal.kind();
        if self.floods.len() >= MAX_KINDS && !self.floods.contains_key(&kind) {
            kind = Refusal::of_stream(OurReason::Various);
        }
        let due = match self.floods.get_mut(&kind) {
            Some(flood) => {
                flood.more += 1;
                flood.last_at = note.at;
                return;
            }
            None => now + FLOOD,
        };
        // Of those that are only counted together there is no first one to show.
        let more = u64::from(kind.reason == OurReason::Various.into());
        if more == 0 {
            out.push(Condensed::One(note));
        }
        self.floods.insert(kind, Flood { more, last_at: note.at, due });
        self.due_by(due);
    }

    fn due_by(&mut self, due: Instant) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    fn hand_out(&mut self, now: Instant, is_due: impl Fn(Instant) -> bool, out: &mut Vec<Condensed>) {
        for pace in self.paces.values_mut() {
            if let Some((many, _)) = pace.many.take_if(|(_, due)| is_due(*due)) {
                out.push(Condensed::Many(many));
            }
        }
        self.floods.retain(|kind, flood| {
            if !is_due(flood.due) {
                return true;
            }
            let goes_on = flood.more > 0;
            if goes_on {
                out.push(Condensed::More(*kind, std::mem::take(&mut flood.more), flood.last_at));
                flood.due = now + FLOOD;
            }
            // Those counted together begin anew: they have no first one, whose place this would be.
            goes_on && kind.reason != OurReason::Various.into()
        });
        self.paces.retain(|_, pace| pace.is_needed(now));
        let dues = self.paces.values().filter_map(|pace| pace.many.as_ref().map(|(_, due)| *due));
        self.next_due = dues.chain(self.floods.values().map(|flood| flood.due)).min();
    }
}

impl Pace {
    fn takes_one(&mut self, now: Instant) -> bool {
        self.fill(now);
        let takes = self.left >= 1.0;
        if takes {
            self.left -= 1.0;
        }
        takes
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.left = (self.left + since * f64::from(PACE)).min(BURST.into());
        self.filled_at = now;
    }

    /// Whether a new one in its place would do something else.
    fn is_needed(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.many.is_some() || self.left < f64::from(BURST)
    }
}

impl Many {
    fn new(key: StreamKey, since: u64) -> Self {
        Self {
            connection: key.connection,
            role: key.role,
            since,
            until: since,
            opened: 0,
            ended: BTreeMap::new(),
            bytes_sent: 0,
            bytes_received: 0,
            messages: 0,
        }
    }

    fn add(&mut self, at: u64, end: Option<StreamEnd>) {
        self.until = at;
        match end {
            None => self.opened += 1,
            Some(end) => {
                *self.ended.entry(end.ending).or_default() += 1;
                self.bytes_sent = self.bytes_sent.saturating_add(end.bytes_sent);
                self.bytes_received = self.bytes_received.saturating_add(end.bytes_received);
                self.messages = self.messages.saturating_add(end.messages.unwrap_or(0));
            }
        }
    }
}

#[cfg(test)]
mod tests;
