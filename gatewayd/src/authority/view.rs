//! What the rest of the daemon sees of the policy: an immutable snapshot.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use gateway_proto::{
    id::ConnectionId,
    policy::{Activation, ConnectionEntry, DeniedReason, LocalEnd, Policy},
};

use super::Part;

/// The policy in force at one moment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PolicyView {
    /// The policy; none: nothing is allowed.
    pub policy: Option<Arc<Policy>>,
    /// When the control plane last confirmed it, Unix seconds.
    pub confirmed_at: u64,
    /// Why a policy was refused or is missing, in words.
    pub problem: Option<String>,
    /// Whether any data may pass through this process.
    pub part: Part,
    index: Arc<Index>,
    senders: Arc<HashMap<SocketAddr, u32>>,
}

/// Position of a connection in the policy by id and role: with itself, a gateway has two entries of one id.
type Index = HashMap<(ConnectionId, bool), usize>;

impl PolicyView {
    /// A view of a policy confirmed at `confirmed_at`.
    pub fn new(policy: Arc<Policy>, confirmed_at: u64) -> Self {
        let entries = policy.connections.iter().enumerate();
        let index = entries.map(|(position, entry)| ((entry.id, is_sender(entry)), position)).collect();
        let senders = Arc::new(senders(&policy));
        Self { policy: Some(policy), confirmed_at, problem: None, part: Part::Full, index: Arc::new(index), senders }
    }

    /// The same policy with another confirmation and problem.
    pub(super) fn at(self, confirmed_at: u64, problem: Option<String>) -> Self {
        Self { confirmed_at, problem, ..self }
    }

    /// The same for a process that takes this part.
    pub(super) fn in_part(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// The revision in force, 0 for none.
    pub fn revision(&self) -> u64 {
        self.policy.as_ref().map_or(0, |policy| policy.revision)
    }

    /// Whether this process is the one that carries data.
    pub fn takes_part(&self) -> bool {
        self.part == Part::Full
    }

    /// Our entry of a connection in one of the two roles.
    pub fn connection(&self, id: ConnectionId, sender_role: bool) -> Option<&Arc<ConnectionEntry>> {
        let position = *self.index.get(&(id, sender_role))?;
        self.policy.as_ref()?.connections.get(position)
    }

    /// How many peers may send to a listener of our engine.
    pub fn senders_to(&self, engine: SocketAddr) -> u32 {
        self.senders.get(&engine).copied().unwrap_or(0)
    }

    /// The next moment after `now` (both Unix seconds) at which time alone takes a permission away; none: there is none.
    pub fn next_deadline(&self, now: u64) -> Option<u64> {
        let entries = self.policy.iter().flat_map(|policy| &policy.connections);
        entries.map(|entry| entry.next_deadline(self.confirmed_at)).filter(|at| *at > now).min()
    }

    /// The entry, if the connection may carry data at `now`.
    pub fn authorize(
        &self,
        id: ConnectionId,
        sender_role: bool,
        now: u64,
    ) -> Result<&Arc<ConnectionEntry>, DeniedReason> {
        let entry = self.connection(id, sender_role).ok_or(DeniedReason::Unknown)?;
        if !self.takes_part() {
            return Err(DeniedReason::StandsBy);
        }
        entry.authorize(now, self.confirmed_at).map(|()| entry)
    }
}

fn senders(policy: &Policy) -> HashMap<SocketAddr, u32> {
    let active = policy.connections.iter().filter(|entry| entry.activation == Activation::Active);
    let ends: BTreeSet<_> = active
        .filter_map(|entry| match &entry.local {
            LocalEnd::Listener { engine, .. } => Some((*engine, entry.peer)),
            LocalEnd::Sender { .. } | LocalEnd::AdminOwner | LocalEnd::AdminUser { .. } => None,
        })
        .collect();
    let mut senders = HashMap::new();
    for (engine, _) in ends {
        *senders.entry(engine).or_default() += 1;
    }
    senders
}

fn is_sender(entry: &ConnectionEntry) -> bool {
    entry.local.opens_streams()
}
