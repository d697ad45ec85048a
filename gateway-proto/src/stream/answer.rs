//! What the far gateway answers to the header of a stream, and why it does not take one.

use serde::{Deserialize, Serialize};

use crate::{places::NoPlace, policy::DeniedReason};

/// The longest detail text of an answer, in bytes.
pub const MAX_DETAIL_LEN: usize = 200;

/// Why the far gateway did not take a stream. The numbers are the wire form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RefusalCode {
    /// The header cannot be read.
    #[error("the partner's gateway could not read the stream header")]
    Malformed = 1,
    /// The header's version is not spoken.
    #[error("the partner's gateway speaks another protocol version; update the older gateway")]
    UnsupportedVersion = 2,
    /// The MAC is wrong, or the connection is not known there; one code for both, so that nothing can be probed.
    #[error("the partner's gateway does not allow this connection (revoked, terminated, or the secrets differ)")]
    NotAllowed = 3,
    /// Not active yet at the far end.
    #[error("the connection is not active at the partner's gateway")]
    NotActive = 4,
    /// Paused.
    #[error("the connection is paused")]
    Paused = 5,
    /// The agreement is suspended.
    #[error("the agreement is suspended")]
    Suspended = 6,
    /// The grant, or the time box of an admin connection, has expired.
    #[error("the connection has expired (its grant, or the time box of an admin connection)")]
    Expired = 7,
    /// The far gateway's policy is stale.
    #[error("the partner's gateway has been without its control plane for too long")]
    Stale = 8,
    /// The stream goes the wrong way for the connection, or has the wrong kind.
    #[error("the stream does not fit the connection's direction or kind")]
    WrongDirection = 9,
    /// The far engine refuses the port.
    #[error("the partner's channel is stopped (its engine refuses the port)")]
    EngineRefused = 10,
    /// The far engine did not answer the dial in time.
    #[error("the partner's engine does not answer on the channel's port")]
    EngineTimeout = 11,
    /// Too many streams.
    #[error("the connection's stream limit is reached at the partner's gateway")]
    TooManyStreams = 12,
    /// The gateway is shutting down.
    #[error("the partner's gateway is shutting down")]
    ShuttingDown = 13,
    /// The connection requires a post-quantum key exchange, and this tunnel has none.
    #[error("the connection requires a post-quantum tunnel")]
    PostQuantumRequired = 14,
    /// An admin stream for a gateway that was not told where its engine's admin API is.
    #[error("the partner's gateway does not know its engine's admin API ([engine] api is not configured there)")]
    AdminUnavailable = 15,
    /// An admin stream whose opening names no acting user.
    #[error("the partner's gateway could not read who is acting on this admin stream")]
    NoActingUser = 16,
    /// The far engine's listener serves as many connections as it can, and none ended in time.
    #[error("the partner's listener is full")]
    ListenerFull = 17,
    /// The far engine says that the channel is stopped, paused, not deployed or deleted; whatever else has its port then is
    /// not what the stream is for.
    #[error("the partner's channel is stopped")]
    ChannelStopped = 18,
    /// The far engine's port is closed, and its own API does not answer either.
    #[error("the partner's engine does not run, or the channel is stopped")]
    EngineDown = 19,
    /// The sender gave the stream up before the far engine had taken it: none of it was delivered.
    #[error("the partner's gateway did not reach its engine in time: its listener is full, or it is slow to answer")]
    TooLate = 20,
}

impl RefusalCode {
    /// Reads the wire form.
    pub fn from_u8(code: u8) -> Option<Self> {
        const ALL: [RefusalCode; 20] = [
            RefusalCode::Malformed,
            RefusalCode::UnsupportedVersion,
            RefusalCode::NotAllowed,
            RefusalCode::NotActive,
            RefusalCode::Paused,
            RefusalCode::Suspended,
            RefusalCode::Expired,
            RefusalCode::Stale,
            RefusalCode::WrongDirection,
            RefusalCode::EngineRefused,
            RefusalCode::EngineTimeout,
            RefusalCode::TooManyStreams,
            RefusalCode::ShuttingDown,
            RefusalCode::PostQuantumRequired,
            RefusalCode::AdminUnavailable,
            RefusalCode::NoActingUser,
            RefusalCode::ListenerFull,
            RefusalCode::ChannelStopped,
            RefusalCode::EngineDown,
            RefusalCode::TooLate,
        ];
        ALL.into_iter().find(|c| *c as u8 == code)
    }
}

impl From<DeniedReason> for RefusalCode {
    fn from(reason: DeniedReason) -> Self {
        match reason {
            DeniedReason::Unknown => Self::NotAllowed,
            DeniedReason::NotActive => Self::NotActive,
            DeniedReason::Paused => Self::Paused,
            DeniedReason::Suspended => Self::Suspended,
            DeniedReason::Expired => Self::Expired,
            DeniedReason::Stale => Self::Stale,
            // Whoever asks again may meet the one that carries data.
            DeniedReason::StandsBy => Self::ShuttingDown,
        }
    }
}

/// Stands in the detail of a full listener, before the number of its places.
const FULL_OF: &str = ", all places taken: ";
/// The same where some are kept for others: before the number of those that are taken.
const TAKEN: &str = ", places taken: ";
/// And between that and the number of all.
const OF: &str = " of ";

/// The far gateway's answer to a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Payload follows.
    Accepted,
    /// The stream ends after this.
    Refused(RefusalCode),
}

impl Answer {
    /// The wire form: code, then a text for people who look at a capture of their own tunnel.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Accepted => vec![0, 0],
            Self::Refused(code) => {
                let detail = code.to_string();
                let detail = &detail.as_bytes()[..detail.len().min(MAX_DETAIL_LEN)];
                let mut bytes = vec![*code as u8, u8::try_from(detail.len()).expect("cut to 200 bytes")];
                bytes.extend_from_slice(detail);
                bytes
            }
        }
    }

    /// The wire form of the refusal of a listener without a place.
    pub fn listener_full(places: NoPlace) -> Vec<u8> {
        let NoPlace { taken, most } = places;
        let detail = match places.kept() {
            0 => format!("{}{FULL_OF}{most}", RefusalCode::ListenerFull),
            _ => format!("{}{TAKEN}{taken}{OF}{most}", RefusalCode::ListenerFull),
        };
        let length = u8::try_from(detail.len()).expect("a short sentence and two numbers");
        [&[RefusalCode::ListenerFull as u8, length], detail.as_bytes()].concat()
    }

    /// The places in the detail of such a refusal.
    pub fn places_of(detail: &[u8]) -> Option<NoPlace> {
        let text = std::str::from_utf8(detail).ok()?;
        if let Some((_, most)) = text.rsplit_once(FULL_OF) {
            let most = most.parse().ok()?;
            return Some(NoPlace::new(most, most));
        }
        let (taken, most) = text.rsplit_once(TAKEN)?.1.split_once(OF)?;
        Some(NoPlace::new(taken.parse().ok()?, most.parse().ok()?))
    }

    /// Reads the code; an unknown one is a refusal of a newer peer.
    pub fn from_code(code: u8) -> Self {
        if code == 0 {
            Self::Accepted
        } else {
            Self::Refused(RefusalCode::from_u8(code).unwrap_or(RefusalCode::NotAllowed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_code_survives_the_wire() {
        for code in 1..=20 {
            let refusal = RefusalCode::from_u8(code).unwrap();
            let bytes = Answer::Refused(refusal).encode();
            assert_eq!(Answer::from_code(bytes[0]), Answer::Refused(refusal));
            assert_eq!(bytes.len(), 2 + usize::from(bytes[1]));
        }
        assert_eq!(RefusalCode::from_u8(21), None);
    }

    #[test]
    fn a_full_listener_says_how_many_places_it_has_and_how_many_are_taken() {
        for places in [NoPlace::new(10, 10), NoPlace::new(5, 10), NoPlace::new(0, u32::MAX)] {
            let bytes = Answer::listener_full(places);
            assert_eq!(Answer::from_code(bytes[0]), Answer::Refused(RefusalCode::ListenerFull));
            assert_eq!(bytes.len(), 2 + usize::from(bytes[1]));
            assert_eq!(Answer::places_of(&bytes[2..]), Some(places));
        }
        // An older gateway looks for this only, and must not read that all are taken where they are not.
        let all_taken =
            |places| String::from_utf8(Answer::listener_full(places)).unwrap().ends_with(", all places taken: 10");
        assert!(all_taken(NoPlace::new(10, 10)) && !all_taken(NoPlace::new(5, 10)));
        assert_eq!(Answer::places_of(b"\xff"), None);
        assert_eq!(Answer::places_of(b"the partner's listener is full"), None);
    }
}
