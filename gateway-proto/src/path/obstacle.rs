//! Why there is no direct path, in words for people.

use std::fmt;

/// What keeps a pair from a direct path, the nearest cause first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// No connection with this peer needs one.
    NotWanted,
    /// Our own configuration wants none.
    SwitchedOff,
    /// We have no address to offer.
    NoAddress,
    /// The relay that carries offers is not reached.
    NoRelay,
    /// The peer has not answered our last offer.
    NoAnswer,
    /// An attempt is under way.
    Trying,
    /// Small packets pass, 1200 bytes do not: QUIC cannot use such a path. Said only while small probes are answered that were
    /// sent after a full-size one had failed; a peer that answers nothing is another thing.
    PacketsTooSmall,
    /// 1200 bytes pass, small packets do not: the tunnel's acknowledgements would be lost.
    SmallPacketsLost,
    /// A direct path loses too much and rests.
    Lossy,
    /// One machine has IPv4 only, the other one IPv6 only, and no NAT64 between is known to the latter.
    NoCommonFamily {
        /// Ours is the one with IPv6.
        ipv6_here: bool,
    },
    /// Both NATs give every destination another port.
    TwoHardNats,
    /// One NAT gives every destination another port, and the two sides have not both allowed port guessing.
    HardNat {
        /// We do.
        we_allow: bool,
    },
    /// One NAT gives every destination another port, and guessing has not found it.
    PortNotGuessed,
    /// Both sides have one public address, and no probe came through.
    SameNat,
    /// No probe of the first round came through, which may have confused a NAT: a later one may.
    NotProved,
    /// No probe came through in several rounds.
    NothingPasses,
    /// No probe came through in several rounds, and of a NAT between it is not known how it maps.
    UnknownNat {
        /// It is ours; else only the peer's.
        ours: bool,
    },
    /// The peer answers nothing, over the relay either: what is between the two sites is not known now.
    PeerSilent,
}

impl Obstacle {
    /// The same of a peer that answers nothing in the tunnel, although a relay is reached. Only one that is there tells
    /// anything of the networks between: where it was stopped, no packet passes either.
    #[must_use]
    pub fn of_a_silent_peer(self) -> Self {
        match self {
            Self::NotWanted
            | Self::SwitchedOff
            | Self::NoAddress
            | Self::NoRelay
            | Self::NoAnswer
            | Self::Trying
            | Self::PeerSilent => self,
            Self::PacketsTooSmall
            | Self::SmallPacketsLost
            | Self::Lossy
            | Self::NoCommonFamily { .. }
            | Self::TwoHardNats
            | Self::HardNat { .. }
            | Self::PortNotGuessed
            | Self::SameNat
            | Self::NotProved
            | Self::NothingPasses
            | Self::UnknownNat { .. } => Self::PeerSilent,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotWanted => "no connection with this peer needs a direct path",
            Self::SwitchedOff => "direct paths are switched off on this side (tunnel.direct = false)",
            Self::NoAddress => "this gateway found no address of its own to offer",
            Self::NoRelay => "no relay is reached, over which the two sides could agree on a direct path",
            Self::NoAnswer => "the partner's gateway has not answered the offer of a direct path",
            Self::Trying => "a direct path is being tried",
            Self::PacketsTooSmall => "the direct path carries small packets but not 1200 bytes (MTU too small)",
            Self::SmallPacketsLost => {
                "the direct path carries 1200 bytes but no small packets (something between the two sites drops short UDP packets)"
            }
            Self::Lossy => "the direct path lost more than 30 % of the packets and rests",
            Self::NoCommonFamily { ipv6_here: true } => {
                "no common address family (IPv6 only here, IPv4 only there), and no NAT64 is known here; an address of the other \
                 family on either side makes a direct path possible"
            }
            Self::NoCommonFamily { ipv6_here: false } => {
                "no common address family (IPv4 only here, IPv6 only there), and nothing comes through a NAT64 there; an address of \
                 the other family on either side makes a direct path possible"
            }
            Self::TwoHardNats => {
                "both NATs use another port per destination; one static UDP port rule on either side (tunnel.listen with a \
                 fixed port) makes a direct path possible"
            }
            Self::HardNat { we_allow: false } => {
                "one NAT uses another port per destination; a static UDP port rule there, or tunnel.port_guessing on both \
                 sides, makes a direct path possible (it is off on this side)"
            }
            Self::HardNat { we_allow: true } => {
                "one NAT uses another port per destination; a static UDP port rule there, or tunnel.port_guessing on both \
                 sides, makes a direct path possible (it is off on the partner's side)"
            }
            Self::PortNotGuessed => "one NAT uses another port per destination, and guessing the port did not succeed",
            Self::SameNat => {
                "both sides are behind one public address: their router does not turn packets round (hairpin), and a firewall \
                 or a missing route keeps their own networks apart; letting UDP pass between these makes a direct path possible"
            }
            Self::NotProved => {
                "no packet has passed between the two sites so far, and why is not proved yet: other attempts follow within a minute"
            }
            Self::NothingPasses => "no packet passes between the two sites: a firewall drops UDP",
            Self::UnknownNat { ours: true } => {
                "no packet passes between the two sites: a firewall drops UDP, or the NAT of this side uses another port per \
                 destination; too few relays answer here to tell (`gateway-ctl netcheck`), so no port is guessed"
            }
            Self::UnknownNat { ours: false } => {
                "no packet passes between the two sites: a firewall drops UDP, or the NAT of the partner uses another port per \
                 destination; too few relays answer there to tell (`gateway-ctl netcheck`), so no port is guessed"
            }
            Self::PeerSilent => {
                "the partner is offline: its gateway answers nothing, over the relay either (not running, without a network, or \
                 its policy does not have this gateway)"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_answers_nothing_is_offline_and_its_firewall_is_not_blamed() {
        for blamed in [Obstacle::NothingPasses, Obstacle::SameNat, Obstacle::HardNat { we_allow: false }] {
            assert_eq!(blamed.of_a_silent_peer(), Obstacle::PeerSilent);
        }
        let told = Obstacle::PeerSilent.to_string();
        // A gateway whose policy dropped us ignores every dial: nobody is to look for a dead machine only.
        assert!(told.contains("offline") && told.contains("its policy does not have this gateway"), "{told}");
        for own in [Obstacle::NotWanted, Obstacle::SwitchedOff, Obstacle::NoRelay, Obstacle::NoAnswer, Obstacle::Trying]
        {
            assert_eq!(own.of_a_silent_peer(), own, "what we know by ourselves");
        }
    }
}
