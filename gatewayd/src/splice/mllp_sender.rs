//! What a partner's close means for our engine that sends MLLP.
//!
//! With response validation off, such an engine takes a FIN after its message for success. A FIN is safe only in answer
//! to its own: while the engine may still send, it never gets one (docs/adr/0005).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::SpliceError;
use crate::observer::Observer;

/// A partner that closes an idle conversation: our engine gets this long to close too, then a reset.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// After our engine closed its side of an MLLP conversation, the far side may be silent for this long before it closes too;
/// an engine's listener has few places, and each conversation left half open would take one for ever.
const HALF_OPEN_LIMIT: Duration = Duration::from_secs(60);

/// The ends of one stream whose engine sends MLLP here.
#[derive(Debug)]
pub(super) struct MllpSender<'a> {
    observer: &'a Observer,
    state: Mutex<State>,
    engine_finished: Notify,
    half_open: Notify,
}

#[derive(Debug, Default)]
struct State {
    last_sent: Option<Instant>,
    engine_finished: Option<Instant>,
    partner_finished: bool,
    last_answer: Option<Instant>,
}

impl<'a> MllpSender<'a> {
    pub(super) fn new(observer: &'a Observer) -> Self {
        Self { observer, state: Mutex::default(), engine_finished: Notify::new(), half_open: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes from our engine; an error when nobody is there for them.
    pub(super) fn engine_sends(&self) -> Result<(), SpliceError> {
        let mut state = self.lock();
        state.last_sent = Some(Instant::now());
        if state.partner_finished { Err(SpliceError::PartnerClosed) } else { Ok(()) }
    }

    /// Bytes from the partner.
    pub(super) fn partner_answers(&self) {
        self.lock().last_answer = Some(Instant::now());
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
            let heard_at = self.lock().last_answer.map_or(closed_at, |at| at.max(closed_at));
            let deadline = heard_at + HALF_OPEN_LIMIT;
            if Instant::now() >= deadline {
                return;
            }
            sleep_until(deadline).await;
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
            () = self.engine_finished.notified() => Ok(()),
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
