//! The signed policy: everything one gateway may do, and nothing about anybody else's.
//!
//! The control plane signs it, the gateway keeps it on disk and runs from it. [`PolicyStore`] holds the rules of
//! acceptance: a pinned key, our own key as audience, revisions that only go up. Whatever is unreadable, unsigned,
//! older or meant for another gateway is an error, never a command: the policy in force stays in force.

mod admin;
mod delta;
mod ports;
mod store;

use std::{fmt, net::SocketAddr, sync::Arc};

pub use admin::{AdminPerson, AdminScope, MAX_PEOPLE};
pub use delta::{DeltaError, Edit, PolicyDelta};
pub use ports::PortOwners;
pub use store::{PolicyError, PolicyStore};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    id::{ConnectionId, OrganizationId, RelayId, ServerId},
    identity::{Context, GatewayPublicKey, NoiseBinding},
    limits::ChannelLimits,
    signed::Envelope,
};

/// Staleness budget of channel data when the grant names none: 72 hours, in seconds.
pub const DEFAULT_STALENESS_SECS: u64 = 72 * 3600;
/// Staleness budget of admin connections when the grant names none: 15 minutes, in seconds.
pub const DEFAULT_ADMIN_STALENESS_SECS: u64 = 15 * 60;
/// The behavior of HL7 v2 over MLLP, the default of a channel.
pub const HL7V2_MLLP: &str = "hl7v2-mllp";
/// The largest policy that is read, in bytes of JSON: 100,000 connections fit.
pub const MAX_POLICY_LEN: usize = 64 << 20;

/// A 32-byte secret of a connection or of a pair of gateways; wiped on drop, masked in `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for keyed hashing only.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(masked)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = zeroize::Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| serde::de::Error::custom("expected 64 hex digits"))?;
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("expected 64 hex digits"))
    }
}

/// What one gateway runs from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The gateway this policy is for.
    pub gateway: GatewayPublicKey,
    /// Goes up with every change, per gateway.
    pub revision: u64,
    /// When it was signed, Unix seconds.
    pub issued_at: u64,
    /// Our own server.
    pub server: ServerName,
    /// The policy keys a gateway accepts from now on (rotation with overlap).
    pub control_keys: Vec<GatewayPublicKey>,
    /// The relay map, in order of preference when nothing was measured.
    pub relays: Vec<RelayEntry>,
    /// The gateways at the other ends of our connections, once each.
    pub peers: Vec<PeerEntry>,
    /// Our connections that are not in a terminal status. Shared: whatever goes on for a connection keeps its entry, not
    /// the whole policy it was in.
    pub connections: Vec<Arc<ConnectionEntry>>,
}

/// A server as both ends of a connection may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerName {
    /// Its id.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// The organization that owns it.
    pub organization: OrganizationId,
    /// That organization's name.
    pub organization_name: String,
}

/// A relay of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayEntry {
    /// Its id, part of the admission proof.
    pub id: RelayId,
    /// `wss://host:port/relay`.
    pub url: String,
    /// SHA-256 of its TLS public key, hex; none: the public web PKI vouches for it.
    pub tls_pin: Option<String>,
    /// `host:port` of its STUN listeners.
    pub stun: Vec<String>,
    /// Where it stands; relays of one region may fail together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// A peer gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Its key, pinned for the tunnel.
    pub key: GatewayPublicKey,
    /// Its Noise key with its own signature over it.
    pub noise: NoiseBinding,
    /// Its server.
    pub server: ServerName,
    /// The relay where it can be reached.
    pub home_relay: Option<RelayId>,
    /// PSK of the rendezvous between the two gateways.
    pub pair_secret: Secret,
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    /// Channel data.
    P2p,
    /// The engine's admin API, read-only.
    AdminReadOnly,
    /// The engine's admin API, read-write.
    AdminReadWrite,
}

/// The activation of a connection, as far as gateways need to know it. Only `Active` carries data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Both policies are being confirmed, or the user has not activated it yet.
    Ready,
    /// May carry data.
    Active,
    /// At least one side holds a pause.
    Paused,
    /// At least one side suspends the agreement.
    Suspended,
}

/// One connection, seen from our end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionEntry {
    /// Its id, the same at both ends.
    pub id: ConnectionId,
    /// What it carries.
    pub kind: ConnectionKind,
    /// Whether it may carry data.
    pub activation: Activation,
    /// The gateway at the other end.
    pub peer: GatewayPublicKey,
    /// What we do at our end.
    pub local: LocalEnd,
    /// The public name of the published endpoint.
    pub endpoint: String,
    /// The kind of exchange, for example `hl7v2-mllp`.
    pub behavior: String,
    /// Of an admin connection: the options it was offered with; the owner's gateway enforces them.
    #[serde(default, skip_serializing_if = "AdminScope::is_plain")]
    pub admin: AdminScope,
    /// Of an admin connection, at its owner's end: who is behind the partner's acting users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub people: Vec<AdminPerson>,
    /// The secrets a stream header may be made with. Whoever takes streams takes any that counts; whoever opens them uses the first
    /// that counts, which during a rotation is the old one until the other end has had time to learn the new one.
    pub secrets: Vec<ConnectionSecret>,
    /// When the grant ends, Unix seconds.
    pub expires_at: Option<u64>,
    /// How long data may go on after the last contact with the control plane, seconds.
    pub staleness_secs: u64,
    /// Open streams at most.
    pub max_streams: u32,
    /// What its owner limits beside; the owner's gateway enforces it.
    #[serde(default, skip_serializing_if = "ChannelLimits::is_unlimited")]
    pub limits: ChannelLimits,
    /// Refuse a tunnel that was not agreed with a post-quantum key exchange.
    pub require_post_quantum: bool,
}

/// A connection's secret and, for one that is being retired, its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSecret {
    /// The secret.
    pub secret: Secret,
    /// Not accepted from this Unix second on; none: the current one.
    pub until: Option<u64>,
}

/// Our end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum LocalEnd {
    /// We receive streams and dial the engine's port.
    Listener {
        /// Where the engine listens; a loopback address unless the operator of this server chose otherwise.
        engine: SocketAddr,
        /// The engine's id of the channel that is meant: nothing goes to another one that has its port. None: the channel was
        /// registered by hand, and the engine did not say which it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        engine_channel: Option<String>,
    },
    /// We open a local port for the engine and send streams.
    Sender {
        /// The local port; 0: the gateway picks one and keeps it.
        port: u16,
    },
    /// We own the engine: we guard its admin API, whose address is in our own configuration, for the partner's people.
    AdminOwner,
    /// We open a local port for our administrators and send admin streams.
    AdminUser {
        /// The local port; 0: the gateway picks one and keeps it.
        port: u16,
    },
}

/// Why a connection may not carry data now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum DeniedReason {
    /// Not in our policy: revoked, terminated, or never granted.
    #[error("the connection is not in the policy (revoked, terminated, or never granted)")]
    Unknown,
    /// Not activated yet.
    #[error("the connection is not active yet")]
    NotActive,
    /// One of the two sides holds a pause.
    #[error("the connection is paused")]
    Paused,
    /// One of the two sides suspends the agreement.
    #[error("the agreement is suspended")]
    Suspended,
    /// The grant, or the time box of an admin connection, has ended.
    #[error("the connection has expired (its grant, or the time box of an admin connection)")]
    Expired,
    /// The control plane was out of reach for longer than the staleness budget.
    #[error("the policy is older than the staleness budget; the control plane must be reached first")]
    Stale,
    /// This process of the gateway is not, or not yet, the one that the control plane lets in.
    #[error(
        "this process of the gateway stands by: the control plane has not let it in, or another one with the same key holds its place"
    )]
    StandsBy,
}

impl ConnectionEntry {
    /// Whether the connection may carry data at `now`, when the control plane last confirmed the policy at
    /// `confirmed_at` (both Unix seconds).
    pub fn authorize(&self, now: u64, confirmed_at: u64) -> Result<(), DeniedReason> {
        match self.activation {
            Activation::Active => {}
            Activation::Ready => return Err(DeniedReason::NotActive),
            Activation::Paused => return Err(DeniedReason::Paused),
            Activation::Suspended => return Err(DeniedReason::Suspended),
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return Err(DeniedReason::Expired);
        }
        if now.saturating_sub(confirmed_at) > self.staleness_secs {
            return Err(DeniedReason::Stale);
        }
        Ok(())
    }

    /// The next moment (Unix seconds) at which the answer of [`authorize`](Self::authorize) may change by time alone.
    pub fn next_deadline(&self, confirmed_at: u64) -> u64 {
        let stale_at = confirmed_at.saturating_add(self.staleness_secs).saturating_add(1);
        self.expires_at.map_or(stale_at, |end| end.min(stale_at))
    }

    /// The secret to open a stream with at `now`, Unix seconds; none: no secret of the entry counts then.
    pub fn opening_secret(&self, now: u64) -> Option<&Secret> {
        self.valid_secrets(now).next()
    }

    /// The secrets valid at `now`, Unix seconds, in the order of the entry.
    pub fn valid_secrets(&self, now: u64) -> impl Iterator<Item = &Secret> {
        self.secrets.iter().filter(move |s| s.until.is_none_or(|end| now < end)).map(|s| &s.secret)
    }
}

impl Policy {
    /// The entry of a connection.
    pub fn connection(&self, id: ConnectionId) -> Option<&Arc<ConnectionEntry>> {
        self.connections.iter().find(|connection| connection.id == id)
    }

    /// The entry of a peer.
    pub fn peer(&self, key: &GatewayPublicKey) -> Option<&PeerEntry> {
        self.peers.iter().find(|peer| peer.key == *key)
    }

    /// Signs the policy as the control plane.
    pub fn sign(&self, key: &crate::identity::GatewayKey) -> Result<Envelope, serde_json::Error> {
        Envelope::sign(key, Context::Policy, self)
    }
}

#[cfg(test)]
mod tests;
