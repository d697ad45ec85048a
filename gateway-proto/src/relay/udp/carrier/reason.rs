//! Why datagrams to a relay travel as they do, in words.

use std::fmt;

/// Why datagrams to the relay travel as they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum CarrierReason {
    /// The relay did not hand out a session.
    #[default]
    NotOffered,
    /// No address to send to: the name does not resolve, or there is only IPv6 where this gateway has none.
    NoAddress,
    /// Tried for the first time.
    Trying,
    /// It passes.
    Passes,
    /// Nothing comes back.
    DoesNotPass,
    /// It passed, then nothing came back any more.
    StoppedPassing,
    /// Small packets pass; those that every path must carry do not.
    OnlySmallPackets,
    /// Long packets pass; small ones, as a tunnel's acknowledgements are, do not.
    OnlyLargePackets,
    /// It loses much, and TLS to the same relay does not.
    Lossy,
}

impl CarrierReason {
    /// The code in counters and in `status --json`.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotOffered => "not_offered",
            Self::NoAddress => "no_address",
            Self::Trying => "trying",
            Self::Passes => "passes",
            Self::DoesNotPass => "does_not_pass",
            Self::StoppedPassing => "stopped_passing",
            Self::OnlySmallPackets => "only_small_packets",
            Self::OnlyLargePackets => "only_large_packets",
            Self::Lossy => "lossy",
        }
    }
}

impl fmt::Display for CarrierReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOffered => "relayed over TLS: the relay offers no UDP",
            Self::NoAddress => "relayed over TLS: the relay's UDP address is not known or not usable here",
            Self::Trying => "relayed over TLS: UDP to the relay is being tried",
            Self::Passes => "relayed over UDP",
            Self::DoesNotPass => "relayed over TLS: UDP to the relay does not pass",
            Self::StoppedPassing => "relayed over TLS: UDP to the relay stopped passing",
            Self::OnlySmallPackets => "relayed over TLS: UDP to the relay carries only small packets (MTU too small)",
            Self::OnlyLargePackets => {
                "relayed over TLS: UDP to the relay carries only large packets (something on the way drops short ones)"
            }
            Self::Lossy => "relayed over TLS: UDP to the relay loses too much, TLS to it does not",
        })
    }
}
