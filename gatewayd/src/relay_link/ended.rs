//! Why a link to a relay is not there, and what that means for the next attempt.

use std::time::Duration;

use gateway_net::ws;
use gateway_proto::relay::{LinkEnd, RefusalCode, VERSION};

use super::{ADMISSION_TIMEOUT, CHANGE_PATIENCE, SILENCE_LIMIT};

/// Why an attachment did not come about, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the relay's entry in the policy is wrong: {0}")]
    Entry(&'static str),
    #[error("no relay token yet: the control plane has not answered since this gateway was enrolled")]
    NoToken,
    #[error("cannot connect to the relay")]
    Connect(#[from] ws::WsError),
    #[error("the relay did not admit this gateway within {} s", ADMISSION_TIMEOUT.as_secs())]
    AdmissionTimeout,
    #[error("the relay refused this gateway: {detail} ({code:?})")]
    Refused { code: RefusalCode, detail: String },
    #[error("the relay asked twice who this gateway is")]
    AskedTwice,
    #[error("the relay is not the one of the policy (its id differs)")]
    OtherRelay,
    #[error("the relay speaks protocol version {0}, this gateway speaks {VERSION}")]
    Version(u8),
    #[error("the link ended")]
    Ended,
    #[error("this machine reaches the relay from another address now")]
    Moved,
    #[error("nothing came from the relay for {} s, although it is asked for a sign of life every 5 s", SILENCE_LIMIT.as_secs())]
    Silent,
    #[error("the relay did not answer within {} s after a change of our network or a pause of this machine", CHANGE_PATIENCE.as_secs())]
    NoAnswer,
    #[error("the relay is restarting")]
    Restarting {
        /// When it wants us back, so that not all come at once.
        pause: Duration,
    },
}

impl LinkError {
    /// The same, of an attachment on which the relay had announced a restart after this pause. Who writes to it, or waits for it, may
    /// notice its end before who reads what it said.
    pub(super) fn after(self, announced: Option<Duration>) -> Self {
        match announced {
            Some(pause) if !matches!(self, Self::Refused { .. }) => Self::Restarting { pause },
            Some(_) | None => self,
        }
    }

    /// How the link ended, as far as the next attempt is concerned. `is_only`: nothing else carries meanwhile.
    pub(super) fn end(&self, is_admitted: bool, is_only: bool) -> LinkEnd {
        if let Self::Restarting { pause } = self {
            return LinkEnd::Restarting { asked: *pause, is_only };
        }
        // One that refuses us, because another took our place, say, is not pressed.
        if matches!(self, Self::Refused { .. }) {
            return LinkEnd::Refused;
        }
        match (is_admitted, matches!(self, Self::Moved | Self::NoAnswer)) {
            (false, _) => LinkEnd::NotReached,
            (true, true) => LinkEnd::Moved,
            (true, false) => LinkEnd::Fell { is_only },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_announced_its_restart_restarts_whoever_notices_its_end_first() {
        let asked = Duration::from_secs(3);
        let expected = LinkEnd::Restarting { asked, is_only: true };
        for noticed in [LinkError::Ended, LinkError::Silent, LinkError::NoAnswer, LinkError::Moved] {
            let end = noticed.after(Some(asked)).end(true, true);
            assert_eq!(end, expected, "the writer under load hears of the end before the reader");
        }
        assert_eq!(LinkError::Ended.after(None).end(true, true), LinkEnd::Fell { is_only: true });
    }

    #[test]
    fn a_relay_that_refuses_is_not_pressed_although_it_announced_a_restart() {
        let refused = LinkError::Refused { code: RefusalCode::Replaced, detail: String::new() };
        assert_eq!(refused.after(Some(Duration::ZERO)).end(true, true), LinkEnd::Refused);
    }

    #[test]
    fn a_change_of_our_own_network_is_no_fall_of_the_relay() {
        for error in [LinkError::Moved, LinkError::NoAnswer] {
            assert_eq!(error.end(true, true), LinkEnd::Moved);
            assert_eq!(error.end(false, true), LinkEnd::NotReached);
        }
    }
}
