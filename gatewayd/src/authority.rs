//! What this gateway may do: the signed policy in force, since when it is confirmed, and who we are enrolled with.
//!
//! Everybody in the daemon asks here, and only the control client and the enrolment change it. A policy is verified,
//! saved and then published; whatever is unreadable, unsigned, older or another gateway's is an error and changes nothing.
//! Without a policy nothing is allowed.
//!
//! Life-cycle: [`Authority::open`] reads the state directory (works without the control plane), then
//! [`enroll`](Authority::enroll) and [`accept`](Authority::accept) move it forward. Both write to disk: call them, like
//! every method that says so, where blocking is allowed.

mod change;
mod clock;
mod enrolment;
mod keep;
mod part;
mod trust;
mod view;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use change::ChangeError;
use clock::Clock;
pub use enrolment::{EnrollmentError, RelayTokenError};
use gateway_net::causes::with_causes;
use gateway_proto::{
    id::ConnectionId,
    identity::{GatewayKey, NoiseKey},
    policy::{ConnectionEntry, DeniedReason, PolicyError, PolicyStore},
    signed::Envelope,
    twice::{Instance, RunsTwice},
};
pub use part::Part;
use tokio::sync::watch;
pub use view::PolicyView;

use crate::store::{Contact, Enrollment, StateDir, StoreError};

/// A confirmation is written to disk at most this often: it is lost in a crash at worst, and then data stops earlier.
const CONTACT_SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// The policy in force and the rights that follow from it. Clones share one state.
#[derive(Debug, Clone)]
pub struct Authority(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Arc<StateDir>,
    clock: Clock,
    instance: Instance,
    view: watch::Sender<Arc<PolicyView>>,
    enrollment: watch::Sender<Option<Enrollment>>,
    relay_token: watch::Sender<Option<String>>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Holds a policy, or is none: then the trusted keys of the enrolment decide whose policy may be the first.
    store: Option<PolicyStore>,
    /// The view of that policy, built once: a confirmation changes only its time.
    built: PolicyView,
    contact: Contact,
    contact_saved_at: Option<Instant>,
    /// In force, but the disk did not take it yet.
    unsaved: Option<Envelope>,
    /// What was to change the policy in force gave none: the next one has to come whole.
    wants_whole: bool,
    /// The policy file was refused at start; it is set aside when a good one takes its place.
    refused_on_disk: bool,
    part: Part,
    /// What was said of another process with our key, and when.
    twice: Option<(RunsTwice, Instant)>,
}

/// Why an offered policy was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Whom to trust is not known yet.
    #[error("this gateway is not enrolled, so no policy can be trusted")]
    NotEnrolled,
    /// It breaks a rule; the one in force stays.
    #[error("the policy was refused")]
    Policy(#[from] PolicyError),
    /// It is in force, because a revocation must not wait for a disk, but a restart would bring the old one back.
    #[error("the policy is in force but could not be saved; a restart would bring the one before back")]
    NotSaved(#[source] StoreError),
}

impl Authority {
    /// Reads the state directory. `now` is the wall clock, Unix seconds. A policy file that is damaged, forged or not
    /// ours is a problem shown in [`PolicyView::problem`], and the daemon runs without a policy. Blocks.
    pub fn open(state: Arc<StateDir>, now: u64) -> Result<Self, StoreError> {
        let enrollment = state.load_enrollment()?;
        let saved_contact = state.load_contact().unwrap_or_else(|error| {
            tracing::warn!(error = with_causes(&error), "the last contact with the control plane is not known");
            None
        });
        let relay_token = state.load_relay_token().unwrap_or_else(|error| {
            tracing::warn!(error = with_causes(&error), "the saved relay token cannot be used");
            None
        });
        let loaded = enrollment.as_ref().map_or(Ok(None), |enrollment| trust::load_policy(&state, enrollment));
        let (store, problem) = match loaded {
            Ok(store) => (store, None),
            Err(problem) => {
                let problem = format!("the policy on disk was refused, nothing is allowed: {}", with_causes(&problem));
                tracing::error!(path = %state.path().display(), "{problem}");
                (None, Some(problem))
            }
        };

        let mut contact = saved_contact.unwrap_or_default();
        let issued_at = store.as_ref().and_then(PolicyStore::current).map_or(0, |policy| policy.issued_at);
        let clock = Clock::new(contact.clock_floor.max(issued_at), Instant::now());
        let now = clock.now(now, Instant::now());
        // Signed by the control plane, so heard from it then; never in the future, or a clock that once ran ahead would
        // stretch the staleness budget.
        contact.confirmed_at = contact.confirmed_at.max(issued_at).min(now);

        let refused_on_disk = problem.is_some();
        let built = build_view(store.as_ref());
        let inner = Inner {
            store,
            built,
            contact,
            contact_saved_at: None,
            unsaved: None,
            wants_whole: false,
            refused_on_disk,
            part: Part::Full,
            twice: None,
        };
        Ok(Self(Arc::new(Shared {
            state,
            clock,
            instance: Instance::from_random(gateway_net::random()),
            view: watch::Sender::new(Arc::new(inner.view(problem))),
            enrollment: watch::Sender::new(enrollment),
            relay_token: watch::Sender::new(relay_token),
            inner: Mutex::new(inner),
        })))
    }

    /// The policy now.
    pub fn view(&self) -> Arc<PolicyView> {
        self.0.view.borrow().clone()
    }

    /// Every change of the policy, of its confirmation (each heartbeat of the control plane) and of its problem.
    pub fn subscribe(&self) -> watch::Receiver<Arc<PolicyView>> {
        self.0.view.subscribe()
    }

    /// The time to decide by, Unix seconds: the wall clock, but never below what signed and saved times vouch for.
    pub fn now(&self) -> u64 {
        self.0.clock.now(gateway_net::time::unix_secs(), Instant::now())
    }

    /// Our entry of a connection in one of the two roles, if it may carry data at `now`.
    pub fn authorize(
        &self,
        id: ConnectionId,
        sender_role: bool,
        now: u64,
    ) -> Result<Arc<ConnectionEntry>, DeniedReason> {
        self.view().authorize(id, sender_role, now).cloned()
    }

    /// Our identity.
    pub fn gateway_key(&self) -> &GatewayKey {
        self.0.state.gateway_key()
    }

    /// Our Noise key.
    pub fn noise_key(&self) -> &NoiseKey {
        self.0.state.noise_key()
    }

    /// The state directory.
    pub fn state(&self) -> &StateDir {
        &self.0.state
    }

    /// The enrolment and its changes.
    pub fn enrollment(&self) -> watch::Receiver<Option<Enrollment>> {
        self.0.enrollment.subscribe()
    }

    /// The relay token and its changes.
    pub fn relay_token(&self) -> watch::Receiver<Option<String>> {
        self.0.relay_token.subscribe()
    }

    /// Verifies an offered policy, saves it, and puts it into force. `Ok(false)`: it was in force already. Blocks.
    pub fn accept(&self, envelope: Envelope, now: u64) -> Result<bool, AcceptError> {
        let mut inner = self.lock();
        let Some(enrollment) = self.0.enrollment.borrow().clone() else { return Err(AcceptError::NotEnrolled) };
        let mut store = match &inner.store {
            Some(store) => store.clone(),
            None => trust::empty_store(self.gateway_key().public(), &enrollment, &envelope),
        };
        let changed = store.accept(&envelope).inspect_err(|error| self.publish_problem(Some(with_causes(error))))?;
        let retried = inner.unsaved.is_some();
        let saved = if changed || retried { self.save_policy(&inner, &enrollment, &envelope, &store) } else { Ok(()) };

        self.0.clock.raise(store.current().map_or(0, |policy| policy.issued_at), Instant::now());
        let returned = std::mem::take(&mut inner.contact.removed);
        if changed {
            inner.replace(store);
        }
        inner.contact.confirmed_at = now;
        inner.unsaved = saved.is_err().then_some(envelope);
        inner.wants_whole = false;
        if saved.is_ok() {
            inner.refused_on_disk = false;
            self.save_contact(&mut inner);
        }
        let problem = saved.as_ref().err().map(|error| format!("the policy is not saved: {}", with_causes(error)));
        self.publish(&inner, problem);
        saved.map_err(AcceptError::NotSaved)?;
        Ok(changed || retried || returned)
    }

    /// Tries again to save a policy that the disk did not take. `Ok(None)`: there is none; else its revision. Blocks.
    pub fn save_pending(&self, now: u64) -> Result<Option<u64>, AcceptError> {
        let Some(envelope) = self.lock().unsaved.clone() else { return Ok(None) };
        self.accept(envelope, now)?;
        Ok(Some(self.view().revision()))
    }

    /// The control plane said that `revision` is its newest: if that is ours, the policy is confirmed. Blocks now and then.
    pub fn confirm(&self, revision: u64, now: u64) {
        let mut inner = self.lock();
        if inner.contact.removed || revision == 0 || inner.revision() != revision {
            return;
        }
        inner.contact.confirmed_at = now;
        let is_due = inner.contact_saved_at.is_none_or(|at| at.elapsed() >= CONTACT_SAVE_INTERVAL);
        // On disk is another policy than the one confirmed: its own confirmation stays as it was.
        if is_due && inner.unsaved.is_none() {
            self.save_contact(&mut inner);
        }
        let problem = self.0.view.borrow().problem.clone();
        self.publish(&inner, problem);
    }

    /// The control plane's clock, Unix seconds: it moves the floor under ours, also down.
    pub fn observe_clock(&self, control_now: u64) {
        let issued_at = self.view().policy.as_ref().map_or(0, |policy| policy.issued_at);
        self.0.clock.set(control_now.max(issued_at), Instant::now());
    }

    /// The control plane said that this gateway was removed: nothing is allowed any more, also after a restart. The files
    /// stay, and an accepted policy or a new enrolment brings the gateway back. Blocks.
    pub fn removed(&self) {
        let mut inner = self.lock();
        inner.contact.removed = true;
        self.save_contact(&mut inner);
        self.publish(&inner, None);
    }

    fn save_policy(
        &self,
        inner: &Inner,
        enrollment: &Enrollment,
        envelope: &Envelope,
        store: &PolicyStore,
    ) -> Result<(), StoreError> {
        let keys = trust::keys_after(envelope, store);
        let saved = trust::save_policy(&self.0.state, enrollment, envelope, keys, inner.refused_on_disk)?;
        if let Some(enrollment) = saved {
            self.0.enrollment.send_replace(Some(enrollment));
        }
        Ok(())
    }

    /// A contact that cannot be saved is a warning: data stops earlier after a restart, nothing else.
    fn save_contact(&self, inner: &mut Inner) {
        self.save_contact_at(inner, Instant::now());
    }

    fn save_contact_at(&self, inner: &mut Inner, at: Instant) {
        inner.contact.clock_floor = self.0.clock.floor(at);
        match self.0.state.save_contact(&inner.contact) {
            Ok(()) => inner.contact_saved_at = Some(Instant::now()),
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "the contact with the control plane is not saved")
            }
        }
    }

    fn publish(&self, inner: &Inner, problem: Option<String>) {
        self.0.view.send_replace(Arc::new(inner.view(problem)));
    }

    fn publish_problem(&self, problem: Option<String>) {
        self.0.view.send_modify(|view| *view = Arc::new(PolicyView::clone(view).at(view.confirmed_at, problem)));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn replace(&mut self, store: PolicyStore) {
        self.built = build_view(Some(&store));
        self.store = Some(store);
    }

    fn revision(&self) -> u64 {
        self.store.as_ref().map_or(0, PolicyStore::revision)
    }

    /// What is in force: nothing after a removal.
    fn view(&self, problem: Option<String>) -> PolicyView {
        let confirmed_at = self.contact.confirmed_at;
        if self.contact.removed {
            let removal = "the control plane removed this gateway: nothing is allowed until it is enrolled again";
            let problem = Some(problem.unwrap_or_else(|| removal.to_owned()));
            return PolicyView::default().at(confirmed_at, problem);
        }
        self.built.clone().at(confirmed_at, problem).in_part(self.part)
    }
}

fn build_view(store: Option<&PolicyStore>) -> PolicyView {
    let policy = store.and_then(PolicyStore::current).cloned();
    policy.map_or_else(PolicyView::default, |policy| PolicyView::new(Arc::new(policy), 0))
}

#[cfg(test)]
mod tests;
