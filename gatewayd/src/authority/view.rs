//! What the rest of the daemon sees of the policy: an immutable snapshot.

use std::{collections::HashMap, sync::Arc};

use gateway_proto::{
    id::ConnectionId,
    policy::{ConnectionEntry, DeniedReason, Policy},
};

/// The policy in force at one moment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PolicyView {
    /// The policy; none: nothing is allowed.
    pub policy: Option<Arc<Policy>>,
    /// When the control plane last confirmed it, Unix seconds.
    pub confirmed_at: u64,
    /// Why a policy was refused or is missing, in words.
    pub problem: Option<String>,
    index: Arc<Index>,
}

/// Position of a connection in the policy by id and role: with itself, a gateway has two entries of one id.
type Index = HashMap<(ConnectionId, bool), usize>;

impl PolicyView {
    /// A view of a policy confirmed at `confirmed_at`.
    pub fn new(policy: Arc<Policy>, confirmed_at: u64) -> Self {
        let entries = policy.connections.iter().enumerate();
        let index = entries.map(|(position, entry)| ((entry.id, is_sender(entry)), position)).collect();
        Self { policy: Some(policy), confirmed_at, problem: None, index: Arc::new(index) }
    }

    /// The same policy with another confirmation and problem.
    pub(super) fn at(self, confirmed_at: u64, problem: Option<String>) -> Self {
        Self { confirmed_at, problem, ..self }
    }

    /// The revision in force, 0 for none.
    pub fn revision(&self) -> u64 {
        self.policy.as_ref().map_or(0, |policy| policy.revision)
    }

    /// Our entry of a connection in one of the two roles.
    pub fn connection(&self, id: ConnectionId, sender_role: bool) -> Option<&Arc<ConnectionEntry>> {
        let position = *self.index.get(&(id, sender_role))?;
        self.policy.as_ref()?.connections.get(position)
    }

    /// The entry, if the connection may carry data at `now`.
    pub fn authorize(&self, id: ConnectionId, sender_role: bool, now: u64) -> Result<&Arc<ConnectionEntry>, DeniedReason> {
        let entry = self.connection(id, sender_role).ok_or(DeniedReason::Unknown)?;
        entry.authorize(now, self.confirmed_at).map(|()| entry)
    }
}

fn is_sender(entry: &ConnectionEntry) -> bool {
    entry.local.opens_streams()
}
