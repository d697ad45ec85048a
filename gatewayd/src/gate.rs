//! The gate every stream passes: whether a connection may carry data now, and the token that is cancelled the moment
//! it no longer may.
//!
//! [`Gate::enter`] checks the current signed policy each time. What it returns is tied to the policy: a task
//! ([`Gate::run`]) looks again at every new policy and at every moment at which time alone changes the answer (a grant
//! expires, the staleness budget ends), and cancels the tokens of connections that lost their permission. Streams,
//! local ports and tunnels hang on those tokens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gateway_proto::{
    id::ConnectionId,
    policy::{ConnectionEntry, DeniedReason, Secret},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    authority::{Authority, PolicyView},
    traffic::Role,
};

/// Time is looked at no less often than this, in case the wall clock was changed.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The role of our end.
pub fn role(entry: &ConnectionEntry) -> Role {
    if entry.local.opens_streams() { Role::Sender } else { Role::Listener }
}

/// Permission to carry data for one end of a connection.
#[derive(Debug, Clone)]
pub struct Permit {
    /// The connection, as the policy has it.
    pub entry: Arc<ConnectionEntry>,
    /// Cancelled when the permission ends.
    pub allowed: CancellationToken,
    /// The moment it was given, Unix seconds.
    given_at: u64,
}

impl Permit {
    /// The secret that a stream of this permission is opened with; none: no secret of the policy counts now.
    pub fn secret(&self) -> Option<&Secret> {
        self.entry.opening_secret(self.given_at)
    }
}

/// Gives and takes permissions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    authority: Authority,
    open: Arc<Mutex<HashMap<(ConnectionId, Role), CancellationToken>>>,
}

impl Gate {
    /// A gate over the policy in force.
    pub fn new(authority: Authority) -> Self {
        Self { authority, open: Arc::default() }
    }

    /// Permission for a new stream or port of `id`, or why there is none.
    pub fn enter(&self, id: ConnectionId, role: Role) -> Result<Permit, DeniedReason> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock: a policy that came into force before it is seen here, a later one cancels the token.
        let now = self.authority.now();
        let entry = self.authority.authorize(id, role == Role::Sender, now)?;
        let allowed = open.entry((id, role)).or_default().clone();
        Ok(Permit { entry, allowed, given_at: now })
    }

    /// The moment by which permissions are judged, Unix seconds.
    pub fn now(&self) -> u64 {
        self.authority.now()
    }

    /// Takes permissions away as policy and time demand, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut views = self.authority.subscribe();
        loop {
            let view = views.borrow_and_update().clone();
            self.close_what_is_denied();
            let pause = self.next_deadline(&view).min(MAX_PAUSE);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = views.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    fn close_what_is_denied(&self) {
        let now = self.authority.now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(id, role), token| {
            let allowed = self.authority.authorize(*id, *role == Role::Sender, now).is_ok();
            if !allowed {
                token.cancel();
            }
            allowed
        });
    }

    fn next_deadline(&self, view: &PolicyView) -> Duration {
        let now = self.authority.now();
        view.next_deadline(now).map_or(MAX_PAUSE, |at| Duration::from_secs(at - now))
    }
}
