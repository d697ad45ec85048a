//! The local ports we chose for senders, remembered across restarts: the engine's configuration names them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use gateway_proto::id::ConnectionId;

use crate::{authority::Authority, store::StoreError};

/// Chosen ports by connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalPorts {
    authority: Authority,
    chosen: Arc<Mutex<BTreeMap<ConnectionId, u16>>>,
}

impl LocalPorts {
    /// Reads what was chosen before.
    pub fn open(authority: Authority) -> Result<Self, StoreError> {
        let chosen = authority.state().load_ports()?;
        Ok(Self { authority, chosen: Arc::new(Mutex::new(chosen)) })
    }

    /// The port chosen for a connection.
    pub fn get(&self, id: ConnectionId) -> Option<u16> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// Remembers a choice; it is on disk when this returns. `false`: the port belongs to another connection.
    pub fn choose(&self, id: ConnectionId, port: u16) -> Result<bool, StoreError> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if chosen.iter().any(|(owner, taken)| *owner != id && *taken == port) {
            return Ok(false);
        }
        let mut next = chosen.clone();
        next.insert(id, port);
        self.authority.state().save_ports(&next)?;
        *chosen = next;
        Ok(true)
    }

    /// Forgets connections that the policy does not list any more, with the next choice written to disk.
    pub fn retain(&self, listed: impl Fn(ConnectionId) -> bool) {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| listed(*id));
    }
}
