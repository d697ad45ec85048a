//! What the carrier does: begin a try, use UDP, leave it, and send pings.

use std::time::Instant;

use super::{
    ANSWERS_AFTER_A_FALL, CarrierReason, MAX_PAYLOAD, MIN_PAYLOAD, PROVEN, Ping, REMEMBERED, STRETCH, Sent, Stage,
    UdpCarrier,
    up::{FULL, LONG_PAUSE, Up, patience},
};

impl UdpCarrier {
    pub(super) fn try_it(&mut self, now: Instant) {
        self.unanswered.clear();
        self.stage = Stage::Trying { since: now, sent: 0, answers: 0, proven: 0, heard: None, heard_empty: false };
    }

    pub(super) fn rise(&mut self, proven: usize, now: Instant) {
        self.reason = CarrierReason::Passes;
        self.count(CarrierReason::Passes);
        self.unanswered.clear();
        self.stage = Stage::Up(Up::new(proven, now));
    }

    pub(super) fn pause(&mut self, reason: CarrierReason, now: Instant, random: u32) {
        let until = now + self.backoff.next_delay(random);
        self.count_fall(reason);
        self.leave(Stage::Waiting { until }, reason);
    }

    /// UDP loses much, and TLS less.
    pub(super) fn rest(&mut self, now: Instant, random: u32) {
        if let Stage::Up(up) = &self.stage
            && now.saturating_duration_since(up.since) >= PROVEN
        {
            self.rests.reset();
        }
        self.wanted = ANSWERS_AFTER_A_FALL;
        let until = now + self.rests.next_delay(random);
        self.count_fall(CarrierReason::Lossy);
        self.leave(Stage::Waiting { until }, CarrierReason::Lossy);
    }

    /// A try that failed changes nothing: TLS carried before it, too.
    fn count_fall(&mut self, reason: CarrierReason) {
        if matches!(self.stage, Stage::Up(_)) {
            self.count(reason);
        }
    }

    fn count(&mut self, reason: CarrierReason) {
        let count = self.changes.entry(reason).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn leave(&mut self, stage: Stage, reason: CarrierReason) {
        self.weigher.clear();
        self.stage = stage;
        self.reason = reason;
        self.unanswered.clear();
        self.outgoing.clear();
    }

    pub(super) fn ping_if_due(&mut self, now: Instant) {
        let Stage::Up(up) = &mut self.stage else { return };
        if up.proven < MAX_PAYLOAD && now >= up.stretch_at {
            up.stretch_at = now + STRETCH;
            up.stretch = Some(self.next_id);
            let ping = Ping { id: self.next_id, echo: self.echo, payload: MAX_PAYLOAD };
            self.next_id += 1;
            self.outgoing.push_back(ping);
        }
        if now < up.ping_due(&self.unanswered, self.rtt) {
            return;
        }
        let mut asked = up.length_to_ask(now);
        if up.active_until > now && now >= up.full_at {
            (asked, up.full_at) = (up.proven, now + FULL);
        }
        let overdue = self.unanswered.front().is_some_and(|oldest| now >= oldest.at + patience(self.rtt));
        if !overdue {
            up.doubts = 0;
            // For what is short only an empty one speaks.
            let is_empty_due = asked == 0 || now >= up.empty_at + LONG_PAUSE;
            if is_empty_due {
                up.empty_at = now;
                self.ping(0, now);
            }
            if asked > 0 {
                self.ping(asked, now);
            }
            return;
        }
        // What is missed is asked for again; the others say whether less would pass, or more.
        let longest = self.unanswered.iter().map(|sent| sent.payload).max().unwrap_or(0).max(asked);
        let is_late = |sent: &Sent| now >= sent.at + patience(self.rtt);
        let misses_empty = self.unanswered.iter().any(|sent| sent.payload == 0 && is_late(sent));
        let is_turn_of_least = up.doubts.is_multiple_of(2) && (longest < MIN_PAYLOAD || !misses_empty);
        up.doubts = up.doubts.wrapping_add(1);
        if longest > 0 {
            self.ping(longest, now);
        }
        if is_turn_of_least && longest != MIN_PAYLOAD {
            self.ping(MIN_PAYLOAD, now);
        }
        if !is_turn_of_least || misses_empty {
            self.ping(0, now);
        }
    }

    pub(super) fn ping(&mut self, payload: usize, now: Instant) {
        let id = self.next_id;
        if let Stage::Up(up) = &mut self.stage {
            up.pinged_at = now;
            self.weigher.sent(id, now);
        }
        self.next_id += 1;
        if self.unanswered.len() == REMEMBERED {
            // Not the oldest: it says how long there was no answer.
            self.unanswered.pop_back();
        }
        self.unanswered.push_back(Sent { id, at: now, payload });
        self.outgoing.push_back(Ping { id, echo: self.echo, payload });
    }
}
