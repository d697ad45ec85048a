//! What must be true before a policy comes into force, and the only place where it does.

use std::collections::BTreeMap;

use super::Policy;
use crate::{
    identity::{Context, GatewayPublicKey},
    signed::{Envelope, SignedError},
    succession::follow,
};

/// Why a policy was not put into force. The one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The envelope was refused.
    #[error("the policy's signature was refused")]
    Signed(#[from] SignedError),
    /// Meant for another gateway.
    #[error("the policy is for gateway {0:?}, not for this one")]
    WrongGateway(GatewayPublicKey),
    /// Older than the one in force.
    #[error("the policy has revision {offered}, but revision {current} is in force; revisions never go back")]
    OlderRevision {
        /// The refused revision.
        offered: u64,
        /// The revision in force.
        current: u64,
    },
    /// The same revision with another content.
    #[error("two different policies carry revision {0}")]
    ConflictingRevision(u64),
    /// A peer's Noise key is not signed by that peer's gateway key.
    #[error("the Noise key of peer {0:?} is not signed by that peer")]
    NoiseBinding(GatewayPublicKey),
    /// The policy contradicts itself.
    #[error("the policy contradicts itself: {0}")]
    Inconsistent(&'static str),
}

/// The policy in force, and the only way to replace it.
#[derive(Debug, Clone)]
pub struct PolicyStore {
    gateway: GatewayPublicKey,
    trusted: Vec<GatewayPublicKey>,
    current: Option<Policy>,
}

impl PolicyStore {
    /// A store for `gateway` that trusts the control key pinned at enrolment.
    pub fn new(gateway: GatewayPublicKey, pinned: GatewayPublicKey) -> Self {
        Self { gateway, trusted: vec![pinned], current: None }
    }

    /// The policy in force.
    pub fn current(&self) -> Option<&Policy> {
        self.current.as_ref()
    }

    /// The revision in force, 0 for none.
    pub fn revision(&self) -> u64 {
        self.current.as_ref().map_or(0, |policy| policy.revision)
    }

    /// The control keys trusted now.
    pub fn trusted(&self) -> &[GatewayPublicKey] {
        &self.trusted
    }

    /// Trusts the keys that the trusted ones vouch for, until the next policy says which count; whether there are any.
    pub fn follow(&mut self, links: &[Envelope]) -> bool {
        let known = follow(&self.trusted, links);
        let is_news = known.len() > self.trusted.len();
        self.trusted = known;
        is_news
    }

    /// Checks an envelope against every rule and puts its policy into force. `Ok(false)`: it is in force already.
    pub fn accept(&mut self, envelope: &Envelope) -> Result<bool, PolicyError> {
        let policy: Policy = envelope.open(Context::Policy, &self.trusted)?;
        if policy.gateway != self.gateway {
            return Err(PolicyError::WrongGateway(policy.gateway));
        }
        let current = self.revision();
        if policy.revision < current {
            return Err(PolicyError::OlderRevision { offered: policy.revision, current });
        }
        if let Some(in_force) = &self.current
            && policy.revision == in_force.revision
        {
            // Signed again at another time, with the same content, is the same policy.
            let same = Policy { issued_at: in_force.issued_at, ..policy.clone() } == *in_force;
            return if same { Ok(false) } else { Err(PolicyError::ConflictingRevision(current)) };
        }
        policy.check()?;
        self.trusted.clone_from(&policy.control_keys);
        self.current = Some(policy);
        Ok(true)
    }
}

impl Policy {
    /// Everything that must hold inside a policy before it may come into force.
    fn check(&self) -> Result<(), PolicyError> {
        let mut peers = BTreeMap::new();
        for peer in &self.peers {
            if peer.noise.verify(&peer.key).is_err() {
                return Err(PolicyError::NoiseBinding(peer.key));
            }
            if peers.insert(peer.key, ()).is_some() {
                return Err(PolicyError::Inconsistent("a peer is listed twice"));
            }
        }
        let mut ids = BTreeMap::new();
        for connection in &self.connections {
            if !peers.contains_key(&connection.peer) && connection.peer != self.gateway {
                return Err(PolicyError::Inconsistent("a connection names a peer that is not listed"));
            }
            if connection.secrets.is_empty() {
                return Err(PolicyError::Inconsistent("a connection has no secret"));
            }
            if !connection.local.fits(connection.kind) {
                return Err(PolicyError::Inconsistent("a connection's end does not fit its kind"));
            }
            // With itself, a server is both ends of one connection: two entries, one of each role.
            let roles: &mut Vec<bool> = ids.entry(connection.id).or_default();
            let sender = connection.local.opens_streams();
            if roles.contains(&sender) || (!roles.is_empty() && connection.peer != self.gateway) {
                return Err(PolicyError::Inconsistent("a connection is listed twice"));
            }
            roles.push(sender);
        }
        if self.control_keys.is_empty() {
            return Err(PolicyError::Inconsistent("no control key"));
        }
        Ok(())
    }
}
