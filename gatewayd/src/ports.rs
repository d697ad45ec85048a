//! The local ports of senders, each of one connection, remembered across restarts: the engine's configuration names them.
//!
//! Whose a port is, [`PortOwners`] decides by the policy in force; here it meets the disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gateway_net::causes::with_causes;
use gateway_proto::{
    id::ConnectionId,
    policy::{Policy, PortOwners},
};
use tracing::warn;

use crate::{
    authority::{Authority, PolicyView},
    store::StoreError,
};

/// Ports by connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalPorts {
    authority: Authority,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    owners: PortOwners,
    /// As they are on disk; none: there they are in the form of an earlier build.
    saved: Option<BTreeMap<ConnectionId, u16>>,
    /// What `owners` goes by; none: there was no policy yet.
    settled: Option<Arc<Policy>>,
}

/// Which port a connection is to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortOf {
    /// This one, and no other connection opens it.
    Own(u16),
    /// Any that is nobody's: see [`LocalPorts::choose`].
    Any,
    /// None: the one it asks for belongs to another connection.
    TakenBy {
        /// The port.
        port: u16,
        /// Whose it is.
        owner: ConnectionId,
    },
    /// None: the policy does not list it as one that has a port.
    NotListed,
}

impl LocalPorts {
    /// Reads what was chosen before.
    pub fn open(authority: Authority) -> Result<Self, StoreError> {
        let (owners, saved) = authority.state().load_ports()?;
        let state = State { owners, saved, settled: None };
        Ok(Self { authority, state: Arc::new(Mutex::new(state)) })
    }

    /// Goes by the policy in force. Without one nothing is known to have ended. Blocks for a disk write once, at the first policy after
    /// an update.
    pub fn settle(&self) {
        drop(self.settled());
    }

    /// The port that belongs to a connection, also while it is closed.
    pub fn get(&self, id: ConnectionId) -> Option<u16> {
        self.settled().0.owners.of(id)
    }

    /// The port to open for a connection. Blocks for the time of a disk write when it is a new one.
    pub fn of(&self, id: ConnectionId) -> PortOf {
        let (mut state, view) = self.settled();
        if let Some(port) = state.owners.of(id) {
            state.remember(id, &self.authority);
            return PortOf::Own(port);
        }
        match asked(&view, id) {
            None => PortOf::NotListed,
            Some(port) => state.owners.owner(port).map_or(PortOf::Any, |owner| PortOf::TakenBy { port, owner }),
        }
    }

    /// Remembers a choice; it is on disk when this returns. `false`: the port belongs to another connection, or there is nothing to
    /// choose any more, because the policy was changed meanwhile. Blocks.
    pub fn choose(&self, id: ConnectionId, port: u16) -> Result<bool, StoreError> {
        let (mut state, view) = self.settled();
        let may_choose = state.owners.of(id).is_none() && asked(&view, id) == Some(0);
        let mut next = state.owners.clone();
        if !may_choose || !next.give(id, port) {
            return Ok(false);
        }
        self.authority.state().save_ports(next.ports())?;
        state.saved = Some(next.ports().clone());
        state.owners = next;
        Ok(true)
    }

    /// What belongs to whom by the policy in force, and that policy.
    fn settled(&self) -> (MutexGuard<'_, State>, Arc<PolicyView>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked up under the lock: nobody goes back to an older one.
        let view = self.authority.view();
        if let Some(policy) = &view.policy
            && state.settled.as_ref().is_none_or(|settled| !Arc::ptr_eq(settled, policy))
        {
            state.owners.settle(policy);
            state.settled = Some(policy.clone());
            // What was decided once by what was open then is not decided again at the next start.
            if state.saved.is_none() {
                state.save(&self.authority);
            }
        }
        (state, view)
    }
}

/// The local port that the policy asks for, 0 for any.
fn asked(view: &PolicyView, id: ConnectionId) -> Option<u16> {
    view.connection(id, true)?.local.asked_port()
}

impl State {
    /// A port that was asked for is opened also when the disk does not take it: the policy says it after a restart as well.
    fn remember(&mut self, id: ConnectionId, authority: &Authority) {
        let saved = self.saved.as_ref().and_then(|saved| saved.get(&id));
        if saved.copied() != self.owners.of(id) {
            self.save(authority);
        }
    }

    fn save(&mut self, authority: &Authority) {
        match authority.state().save_ports(self.owners.ports()) {
            Ok(()) => self.saved = Some(self.owners.ports().clone()),
            Err(error) => warn!(error = with_causes(&error), "the local ports are not remembered"),
        }
    }
}
