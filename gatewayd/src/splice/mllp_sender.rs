//! What a partner's close means for our engine that sends MLLP.
//!
//! With response validation off, such an engine takes a FIN after its message for success. A FIN is safe only in answer
//! to its own: while the engine may still send, it never gets one (docs/adr/0005).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_proto::limits::ReceiveTimeout;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use super::SpliceError;
use crate::observer::Observer;

/// A partner that closes an idle conversation: our engine gets this long to close too, then a reset.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// After our engine closed its side of an MLLP conversation, the far side may be silent for this long before it closes too;
/// an engine's listener has few places, and each conversation left half open would take one for ever. What our engine sent and nobody
/// acknowledged is not silent as long as it may be under way, as the owner's receive timeout has it.
const HALF_OPEN_LIMIT: Duration = Duration::from_secs(60);
/// But no longer than this after our engine closed: 4 MiB pass at 7 kB/s meanwhile, and an engine that hangs keeps its place as long.
const MAX_PASSING: Duration = Duration::from_secs(10 * 60);

/// The ends of one stream whose engine sends MLLP here.
#[derive(Debug)]
pub(super) struct MllpSender<'a> {
    observer: &'a Observer,
    state: Mutex<State>,
    engine_finished: Notify,
    half_open: Notify,
}

#[derive(Debug)]
struct State {
    /// Bytes of our engine under way, since everything was acknowledged last.
    passing: ReceiveTimeout,
    last_sent: Option<Instant>,
    engine_finished: Option<Instant>,
    partner_finished: bool,
    last_answer: Option<Instant>,
}

impl State {
    fn partner_listens(&self) -> Result<(), SpliceError> {
        if self.partner_finished { Err(SpliceError::PartnerClosed) } else { Ok(()) }
    }
}

impl<'a> MllpSender<'a> {
    pub(super) fn new(observer: &'a Observer) -> Self {
        let state = State {
            passing: ReceiveTimeout::new(HALF_OPEN_LIMIT, Instant::now().into_std()),
            last_sent: None,
            engine_finished: None,
            partner_finished: false,
            last_answer: None,
        };
        Self { observer, state: Mutex::new(state), engine_finished: Notify::new(), half_open: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes from our engine; an error when nobody is there for them.
    pub(super) fn engine_sends(&self, now: Instant) -> Result<(), SpliceError> {
        let mut state = self.lock();
        state.last_sent = Some(now);
        state.partner_listens()
    }

    /// An error when the partner has finished: nobody will acknowledge what goes on now.
    pub(super) fn partner_listens(&self) -> Result<(), SpliceError> {
        self.lock().partner_listens()
    }

    /// So many bytes of our engine were handed to the tunnel.
    pub(super) fn went_on(&self, bytes: usize) {
        self.lock().passing.handle_bytes(bytes, Instant::now().into_std());
    }

    /// Bytes from the partner, which were observed.
    pub(super) fn partner_answers(&self, now: Instant) {
        // What is acknowledged has arrived.
        let has_arrived = self.observer.may_end_cleanly();
        let mut state = self.lock();
        state.last_answer = Some(now);
        if has_arrived {
            state.passing = ReceiveTimeout::new(HALF_OPEN_LIMIT, now.into_std());
        }
        if state.engine_finished.is_some() {
            self.half_open.notify_one();
        }
    }

    /// Our engine sends no more.
    pub(super) fn engine_finished(&self) {
        self.lock().engine_finished = Some(Instant::now());
        self.engine_finished.notify_one();
        self.half_open.notify_one();
    }

    /// Resolves when the engine has closed and the partner was silent for too long since.
    pub(super) async fn half_open_for_too_long(&self) {
        self.half_open.notified().await;
        let closed_at = Instant::now();
        loop {
            let may_pass = !self.observer.may_end_cleanly();
            let (heard_at, passed_for_too_long) = {
                let state = self.lock();
                (state.last_answer.map_or(closed_at, |at| at.max(closed_at)), state.passing.poll_timeout())
            };
            let deadline = heard_at + HALF_OPEN_LIMIT;
            let passed_for_too_long = Instant::from(passed_for_too_long).min(closed_at + MAX_PASSING);
            let deadline = if may_pass { deadline.max(passed_for_too_long) } else { deadline };
            if Instant::now() >= deadline {
                return;
            }
            // Again with each answer. On the heap: few streams come here.
            let _ = Box::pin(timeout_at(deadline, self.half_open.notified())).await;
        }
    }

    /// The partner sends no more: a clean end if everything is acknowledged and the engine closes too.
    pub(super) async fn partner_finished(&self) -> Result<(), SpliceError> {
        if !self.observer.may_end_cleanly() {
            return Err(self.unacknowledged());
        }
        let engine_finished = {
            let mut state = self.lock();
            state.partner_finished = true;
            state.engine_finished
        };
        if engine_finished.is_some() {
            return Ok(());
        }
        tokio::select! {
            // Again: what it sent meanwhile has nobody to acknowledge it.
            () = self.engine_finished.notified() => match self.observer.may_end_cleanly() {
                true => Ok(()),
                false => Err(self.unacknowledged()),
            },
            () = sleep(CLOSE_GRACE) => Err(SpliceError::PartnerClosed),
        }
    }

    /// Whoever closed first is the cause: the partner that does not acknowledge, or our engine that waits no longer for it.
    fn unacknowledged(&self) -> SpliceError {
        let state = self.lock();
        match (state.last_sent, state.engine_finished) {
            (Some(sent), Some(finished)) => SpliceError::EngineGaveUp(finished.saturating_duration_since(sent)),
            (_, _) => SpliceError::Unacknowledged,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gateway_proto::policy::HL7V2_MLLP;

    use super::*;
    use crate::traffic::{Role, Traffic};

    const MESSAGE: &[u8] = b"\x0bMSH|^~\\&|A|B|C|D|1||ADT^A01|ID\r\x1c\r";
    const ANSWER: &[u8] = b"\x0bMSH|^~\\&|C|D|A|B|2||ACK|R\rMSA|AA|ID\r\x1c\r";

    /// How long a conversation stays half open after its engine sent so many bytes and closed, seconds.
    async fn stays_open(bytes: usize, answered_after: Option<Duration>) -> u64 {
        let observer = Observer::new(Arc::new(Traffic::default()), Role::Sender, HL7V2_MLLP, true);
        let mllp = MllpSender::new(&observer);
        let begun = Instant::now();
        observer.from_engine(MESSAGE, Instant::now().into_std());
        mllp.engine_sends(Instant::now()).unwrap();
        mllp.went_on(bytes);
        mllp.engine_finished();
        let answers = async {
            if let Some(after) = answered_after {
                sleep(after).await;
                observer.from_tunnel(ANSWER, Instant::now().into_std());
                mllp.partner_answers(Instant::now());
            }
        };
        tokio::join!(mllp.half_open_for_too_long(), answers);
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_may_be_under_way_keeps_its_conversation_open_and_its_acknowledgement_ends_that() {
        assert_eq!(stays_open(100, None).await, 60);
        assert_eq!(
            stays_open(90_000, None).await,
            150,
            "as long as it passes at the least rate of a grant, and a minute"
        );
        assert_eq!(stays_open(90_000, Some(Duration::from_secs(5))).await, 65);
        assert_eq!(stays_open(90_000, Some(Duration::from_secs(120))).await, 180);
        assert_eq!(stays_open(4_000_000, None).await, 600, "no place is held for an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_acknowledged_before_keeps_no_conversation_open() {
        let observer = Observer::new(Arc::new(Traffic::default()), Role::Sender, HL7V2_MLLP, true);
        let mllp = MllpSender::new(&observer);
        observer.from_engine(MESSAGE, Instant::now().into_std());
        mllp.engine_sends(Instant::now()).unwrap();
        mllp.went_on(10_000_000);
        observer.from_tunnel(ANSWER, Instant::now().into_std());
        mllp.partner_answers(Instant::now());
        observer.from_engine(MESSAGE, Instant::now().into_std());
        mllp.engine_sends(Instant::now()).unwrap();
        mllp.went_on(100);
        mllp.engine_finished();
        let closed_at = Instant::now();
        mllp.half_open_for_too_long().await;
        assert_eq!(closed_at.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_closes_after_its_partner_is_looked_at_again_for_what_nobody_acknowledged() {
        for (bytes, expected) in [(&b""[..], Ok(())), (MESSAGE, Err(()))] {
            let observer = Observer::new(Arc::new(Traffic::default()), Role::Sender, HL7V2_MLLP, true);
            let mllp = MllpSender::new(&observer);
            let closes = async {
                tokio::task::yield_now().await;
                assert_eq!(mllp.partner_listens(), Err(SpliceError::PartnerClosed));
                observer.from_engine(bytes, Instant::now().into_std());
                mllp.engine_finished();
            };
            let (ended, ()) = tokio::join!(mllp.partner_finished(), closes);
            assert_eq!(ended.map_err(|_| ()), expected);
        }
    }
}
