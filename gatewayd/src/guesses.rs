//! The runs of port guessing of the last 24 hours, kept over a restart.
//!
//! Written as soon as a run begins, which is twice a day for each partner at most. Nobody waits for the disk: a crash within that moment gives one run
//! more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_net::{causes::with_causes, time::unix_secs};
use gateway_proto::{identity::GatewayPublicKey, path::GuessLedger};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::authority::Authority;

/// What was guessed for whom. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Guesses {
    authority: Authority,
    ledger: Arc<Mutex<GuessLedger>>,
    changes: watch::Sender<u64>,
}

impl Guesses {
    /// Reads what was guessed before. A damaged file costs two runs for each partner, not the start.
    pub fn open(authority: Authority) -> Self {
        let former = authority.state().load_guesses().unwrap_or_else(|error| {
            warn!(problem = with_causes(&error), "the former runs of port guessing could not be read");
            None
        });
        Self { authority, ledger: Arc::new(Mutex::new(former.unwrap_or_default())), changes: watch::Sender::new(0) }
    }

    /// How long ago the runs for this partner were.
    pub fn ages(&self, peer: &GatewayPublicKey) -> Vec<Duration> {
        self.lock().ages(peer, unix_secs())
    }

    /// A run for this partner begins; [`Self::keep`] writes it.
    pub fn note(&self, peer: GatewayPublicKey) {
        self.lock().note(peer, unix_secs());
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Writes what is noted, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut changes = self.changes.subscribe();
        if *changes.borrow() > 0 {
            // Runs began before this runs.
            changes.mark_changed();
        }
        stop.run_until_cancelled(async {
            // We hold a sender ourselves, so the channel never closes.
            while changes.changed().await.is_ok() {
                changes.mark_unchanged();
                let ledger = self.lock().clone();
                self.authority.write("the runs of port guessing", move |state| state.save_guesses(&ledger)).await;
            }
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, GuessLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
