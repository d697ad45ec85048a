//! The rungs as finely as the two gateways' status tells them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use gateway_proto::api::local::{PeerStatus, Status};

use super::Mapper;

/// How the packets of a pair travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the far gateway's own address.
    Own(Family),
    /// To an address that the far side's NAT gave it.
    Punched(Family),
    /// To a port that the far side's router forwards.
    Mapped(Family),
    /// Over a relay, between the two sides and it.
    Relayed(Carrier, Carrier),
}

/// The protocol below UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How one side reaches its relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// UDP.
    Udp,
    /// WebSocket over TLS.
    Tls,
}

impl Way {
    /// Of a direct path, as the near side sees it; `own` is the far gateway's address.
    pub fn direct(peer: &PeerStatus, own: IpAddr) -> Option<Self> {
        let remote: SocketAddr = peer.remote_address.as_ref()?.parse().ok()?;
        Some(match remote.ip().to_canonical() {
            // The lab translates no IPv6.
            IpAddr::V6(_) => Self::Own(Family::V6),
            v4 if v4 == own => Self::Own(Family::V4),
            IpAddr::V4(v4) if (0..usize::from(u8::MAX)).any(|site| Mapper::outer(site) == v4) => {
                Self::Mapped(Family::V4)
            }
            IpAddr::V4(_) => Self::Punched(Family::V4),
        })
    }

    /// Of a relayed path: how each side reaches its home relay.
    pub fn relayed(near: &Status, far: &Status) -> Self {
        let carrier = |status: &Status| {
            let home = status.relays.iter().find(|relay| relay.home);
            match home.and_then(|relay| relay.carrier.as_deref()) {
                Some("passes") => Carrier::Udp,
                Some(_) | None => Carrier::Tls,
            }
        };
        Self::Relayed(carrier(near), carrier(far))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(family) => write!(f, "own {family}"),
            Self::Punched(family) => write!(f, "punched {family}"),
            Self::Mapped(family) => write!(f, "mapped {family}"),
            Self::Relayed(near, far) if near == far => write!(f, "relay {near}"),
            Self::Relayed(near, far) => write!(f, "relay {near}/{far}"),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tls => "TLS",
        })
    }
}
