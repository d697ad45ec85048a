//! Offers, answers and trickled candidates, and what they start.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::PathAgent;
use crate::{
    id::RelayId,
    path::{
        Candidate, NatMapping, PathEvent, PathReason, PathTransmit,
        heartbeat::Suspicion,
        pairs::{MAX_PAIRS, PairsChange},
        punch::{OPENER, Phase, RoundStep},
        session::Session,
    },
    signal::{
        Envelope, MAX_CLOCK_SKEW_MS, NatReport, Offer, ReceivedOffer, Role, SignalError, SignalKind, SignalPayload,
        Trickle,
    },
};

/// Assumed round trip to a relay that was not measured.
const DEFAULT_RELAY_RTT: Duration = Duration::from_millis(50);

/// Longest wait for the peer to have our signal; a relay further away than that is lying or broken.
const MAX_SIGNAL_DELAY: Duration = Duration::from_millis(500);

/// Our offer under way, and what it told.
pub(super) struct PendingOffer {
    offer: Offer,
    told: Told,
    /// The offer as it was sent, to be sent once more if the peer turns out not to have been there yet.
    again: Option<Vec<u8>>,
}

impl fmt::Debug for PendingOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingOffer").field("offer", &self.offer).field("told", &self.told).finish_non_exhaustive()
    }
}

/// What the peer was told of us, as far as a change is worth a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    candidates: Vec<Candidate>,
    mapping: NatMapping,
}

impl PathAgent {
    /// A signal of the peer, as `relay` handed it over: offers count for each relay by itself. `unix_ms` is the wall clock, for the age of
    /// offers.
    pub fn handle_signal(
        &mut self,
        relay: RelayId,
        sealed: &[u8],
        now: Instant,
        unix_ms: u64,
    ) -> Result<(), SignalError> {
        let result = Envelope::parse(sealed).and_then(|envelope| match envelope.kind {
            SignalKind::Offer => self.receive_offer(relay, &envelope, now, unix_ms),
            SignalKind::Answer => self.receive_answer(&envelope, now),
            SignalKind::Transport => self.receive_trickle(&envelope, now),
        });
        match result {
            Ok(()) => self.counters.signals_received += 1,
            Err(_) => self.counters.signals_refused += 1,
        }
        result
    }

    pub(super) fn poll_punch(&mut self, now: Instant, unix_ms: u64) {
        let direct = self.is_direct();
        let pause_is_over = self.punch.phase.pause_ends(self.active).is_some_and(|at| at <= now);
        match &mut self.punch.phase {
            Phase::Idle => {}
            Phase::OfferDue { at, tries } if *at <= now => {
                let tries = *tries;
                self.send_offer(tries, now, unix_ms);
            }
            Phase::Offered { until, tries } if *until <= now => {
                let tries = *tries;
                self.offer = None;
                self.counters.offers_unanswered += 1;
                let random = self.random.number();
                self.punch.offer_timed_out(tries, random, now);
            }
            Phase::Round(round) => match round.poll(direct, now) {
                Some(RoundStep::Burst { first, ttl }) => {
                    self.attempts += u64::from(first);
                    self.burst(ttl, now);
                }
                Some(RoundStep::Over) if direct => self.punch.phase = Phase::Idle,
                Some(RoundStep::Over) => {
                    let random = self.random.number();
                    self.punch.round_failed(random, now);
                }
                None => {}
            },
            Phase::Backoff { .. } if pause_is_over => {
                self.punch.phase = Phase::Idle;
                if !direct {
                    self.request_punch(now);
                }
            }
            Phase::OfferDue { .. } | Phase::Offered { .. } | Phase::Backoff { .. } => {}
        }
    }

    /// Starts a punch in the way that is open now: with an offer over the relay, else with what is known already.
    pub(super) fn request_punch(&mut self, at: Instant) {
        if self.relay_up {
            self.punch.request_offer(at);
        } else if self.sessions.newest().is_some() {
            self.offer = None;
            self.start_round(at);
        } else {
            self.offer = None;
            self.punch.phase = Phase::Idle;
        }
    }

    /// Punching is over; the direct path with it.
    pub(super) fn stop_punching(&mut self, now: Instant) {
        self.punch.phase = Phase::Idle;
        self.offer = None;
        self.relook_at = None;
        self.stop_guessing(now);
        for pair in self.pairs.iter_mut() {
            pair.fail();
        }
        if self.is_direct() {
            self.leave_direct(PathReason::NotWanted, now);
        }
    }

    /// Tells the peer our candidates and our NAT when it knows older ones; false when there is no way to.
    pub(super) fn tell_candidates(&mut self, now: Instant) -> bool {
        let news = self.news();
        if !self.relay_up || self.told == news {
            return false;
        }
        let trickle =
            Trickle { candidates: self.local.clone(), network: Some((self.nat_report(), self.guess_report(now))) };
        let Some(session) = self.sessions.newest() else { return false };
        let Ok(sealed) = session.seal_trickle(&trickle) else { return false };
        self.told = news;
        self.counters.trickles_sent += 1;
        self.transmit(PathTransmit::Signal { sealed });
        true
    }

    /// How long a signal takes to the peer: half of our round trip to the relay and half of the peer's.
    pub(super) fn signal_delay(&self) -> Duration {
        let ours = self.relay_rtt.unwrap_or(DEFAULT_RELAY_RTT);
        let theirs = self.peer_nat.relay_rtt().unwrap_or(DEFAULT_RELAY_RTT);
        ((ours + theirs) / 2).min(MAX_SIGNAL_DELAY)
    }

    fn send_offer(&mut self, tries: u32, now: Instant, unix_ms: u64) {
        if !self.relay_up {
            self.request_punch(now);
            return;
        }
        let payload = self.payload(now, unix_ms);
        // Our own keys not making a handshake is as good as an unanswered offer: counted, and tried again later.
        if let Ok((offer, sealed)) = Offer::seal(&self.keys, &payload, &mut self.random) {
            self.offer = Some(PendingOffer { offer, told: self.news(), again: Some(sealed.clone()) });
            self.counters.offers_sent += 1;
            self.transmit(PathTransmit::Signal { sealed });
        }
        self.punch.offered(tries, now);
    }

    fn receive_offer(
        &mut self,
        relay: RelayId,
        envelope: &Envelope<'_>,
        now: Instant,
        unix_ms: u64,
    ) -> Result<(), SignalError> {
        if !self.needed {
            return Err(SignalError::NotWanted);
        }
        if !self.allow_direct {
            return Err(SignalError::SwitchedOff);
        }
        if !self.offer_budgets.take(relay, now) {
            return Err(SignalError::TooMany);
        }
        let offer = ReceivedOffer::open(&self.keys, envelope, &mut self.random)?;
        if let Err(refused) = self.guard.accept(offer.payload(), unix_ms) {
            // It is the peer's, though an old one or from a clock that differs: whoever makes offers has no direct path.
            self.suspect(Suspicion::PeerDoubts, now);
            return Err(refused);
        }
        if self.keys.local_key < self.keys.remote_key
            && let Some(pending) = &mut self.offer
        {
            self.counters.offers_crossed += 1;
            // Ours counts, but the peer may have dropped it: it wants a path only now. A second copy is refused as such.
            if let Some(sealed) = pending.again.take() {
                self.transmit(PathTransmit::Signal { sealed });
            }
            return Ok(());
        }
        self.offer = None;
        let theirs = offer.payload().clone();
        let session_id = offer.session_id();
        let (channel, secrets, sealed) = offer.answer(&self.payload(now, unix_ms))?;
        self.transmit(PathTransmit::Signal { sealed });
        self.counters.answers_sent += 1;
        self.told = self.news();
        let withdrawn = self.names_no_more(&theirs);
        self.begin_session(Session::new(session_id, &secrets, Role::Responder, channel), &theirs);
        if withdrawn {
            self.leave_direct(PathReason::PeerMoved, now);
        }
        // Our own NAT is open before the peer can have read the answer: its first packets find a mapping there.
        self.burst(Some(OPENER), now);
        self.start_round(now + self.signal_delay());
        Ok(())
    }

    /// Whether the peer had named the address that our data goes to, and does not any more: it has restarted, or its network
    /// has changed. It would not make an offer if it had a direct path, so nothing is lost over the relay meanwhile.
    fn names_no_more(&self, theirs: &SignalPayload) -> bool {
        let named = self.direct_remote().filter(|remote| self.pairs.get(*remote).is_some_and(|pair| pair.signalled));
        named.is_some_and(|remote| theirs.candidates.iter().all(|candidate| candidate.addr != remote))
    }

    fn receive_answer(&mut self, envelope: &Envelope<'_>, now: Instant) -> Result<(), SignalError> {
        let pending = self.offer.take_if(|pending| pending.offer.session_id() == envelope.session_id);
        let PendingOffer { offer, told, again } = pending.ok_or(SignalError::UnknownSession)?;
        let answer = match offer.open_answer(envelope.sealed) {
            Ok(answer) => answer,
            Err((offer, error)) => {
                self.offer = Some(PendingOffer { offer: *offer, told, again });
                return Err(error);
            }
        };
        self.told = told;
        let session = Session::new(envelope.session_id, &answer.secrets, Role::Initiator, answer.channel);
        self.begin_session(session, &answer.payload);
        self.tell_candidates(now);
        self.start_round(now);
        Ok(())
    }

    fn receive_trickle(&mut self, envelope: &Envelope<'_>, now: Instant) -> Result<(), SignalError> {
        let trickle = self.sessions.open_trickle(envelope.session_id, envelope.sealed)?;
        if let Some((nat, guess)) = trickle.network {
            (self.peer_nat, self.peer_guess) = (nat, guess);
        }
        if self.take_remote_candidates(&trickle.candidates) && self.wanted {
            self.punch.rearm();
            if !matches!(self.punch.phase, Phase::Offered { .. }) {
                self.start_round(now);
            }
        }
        Ok(())
    }

    fn begin_session(&mut self, session: Session, theirs: &SignalPayload) {
        self.sessions.install(session);
        self.event(PathEvent::SessionsChanged);
        self.peer_nat = theirs.nat;
        self.peer_guess = theirs.guess;
        if self.take_remote_candidates(&theirs.candidates) {
            self.punch.rearm();
        }
        for pair in self.pairs.iter_mut() {
            pair.end_chase();
        }
    }

    /// Takes the peer's candidate set; returns whether it names an address that it did not name before. One that has expired here
    /// meanwhile is no news: nothing has changed, and attempts go on with growing pauses.
    fn take_remote_candidates(&mut self, candidates: &[Candidate]) -> bool {
        let accepted = self.accepted_candidates(candidates, MAX_PAIRS);
        let change = self.pairs.replace_signalled(&accepted, self.direct_remote());
        self.note_pairs(change);
        let is_news = accepted.iter().any(|candidate| !self.peer_named.contains(candidate));
        self.peer_named = accepted;
        is_news
    }

    pub(super) fn note_pairs(&mut self, change: PairsChange) -> usize {
        self.counters.candidates_dropped += change.refused;
        self.counters.addresses_evicted += change.evicted;
        self.forget(change.forgotten);
        change.added
    }

    fn news(&self) -> Told {
        Told { candidates: self.local.clone(), mapping: self.nat.mapping }
    }

    fn nat_report(&self) -> NatReport {
        NatReport {
            mapping: self.nat.mapping,
            relay_rtt_ms: self.relay_rtt.map(|rtt| u16::try_from(rtt.as_millis()).unwrap_or(u16::MAX)),
        }
    }

    fn payload(&mut self, now: Instant, unix_ms: u64) -> SignalPayload {
        // One more than the last, over small steps back of the clock. After a larger one that would run ahead of the
        // clock by more than the peer accepts; but then the peer has refused the offers from that future, too.
        let next = unix_ms.max(self.last_generation.saturating_add(1));
        self.last_generation = if next > unix_ms.saturating_add(MAX_CLOCK_SKEW_MS) { unix_ms } else { next };
        SignalPayload {
            generation: self.last_generation,
            sent_at_unix_ms: unix_ms,
            probe_secret: self.random.bytes(),
            nat: self.nat_report(),
            candidates: self.local.clone(),
            guess: self.guess_report(now),
        }
    }
}
