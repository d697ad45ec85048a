//! Why there is no link to the control plane, in the words that people read.

use std::{fmt, time::Duration};

use gateway_net::{
    tls::{PinError, PinMismatch},
    ws::{StatusCode, WsError, WsStreamError},
};
use gateway_proto::{
    api::refusal::{GatewayRefusal, RefusalReason},
    twice::RunsTwice,
};
use tokio::task::JoinError;

use crate::authority::ChangeError;

/// Why a link ended, or never began.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkEnd {
    #[error("the gateway was enrolled elsewhere")]
    Moved,
    #[error("'{0}' is not the address of a control plane: https://host or https://host:port is needed")]
    Address(String),
    #[error("the pin saved at the enrolment is not usable; enrol again")]
    Pin(#[source] PinError),
    #[error("cannot sign the request to the control plane")]
    Sign(#[source] serde_json::Error),
    #[error("cannot connect to the control plane")]
    Connect(#[source] WsError),
    #[error(
        "the control plane does not accept this gateway's signature: either the gateway was removed there, or the clocks \
         differ by more than 60 s (ours says {ours}, Unix seconds)"
    )]
    Unauthenticated { ours: OurTime },
    #[error(
        "the clocks differ by more than 60 s: ours says {ours}, the control plane's {theirs} (Unix seconds); correct the one \
         that is wrong"
    )]
    Clock { ours: OurTime, theirs: u64 },
    #[error(
        "the control plane does not know the policy key that this gateway trusts: its database is from before that key was \
         made (a backup was restored), or another control plane answers there; its operator restores a newer backup, or this \
         gateway is enrolled anew"
    )]
    StrangePolicyKey,
    #[error(
        "the control plane knows no gateway with our key: its database is from before the enrolment (a backup was restored), or \
         it was set up anew; enrol this gateway anew, with a new code"
    )]
    NotEnrolled,
    #[error(
        "the control plane shows another TLS key than the one that was pinned at the enrolment; after a restore its data \
         directory lacks tls-key.pem of the backup, otherwise somebody stands in between"
    )]
    TlsKey(#[source] PinMismatch),
    #[error("the control plane removed this gateway: nothing is allowed until it is enrolled again")]
    Removed,
    #[error("{0}")]
    RunsTwice(RunsTwice),
    #[error("the control plane closed the link{}", said(.0))]
    Closed(Option<String>),
    #[error("the link to the control plane broke")]
    Broken(#[source] WsStreamError),
    #[error("the control plane was silent for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("the control plane does not take what we send")]
    Stuck,
    #[error("the control plane has policy revision {newest} but did not send it (revision {ours} is in force)")]
    MissingPolicy { newest: u64, ours: u64 },
    #[error("a change of the policy cannot be used; the whole policy is asked for")]
    Change(#[source] ChangeError),
    #[error("a task of the link failed")]
    Task(#[from] JoinError),
}

/// What this machine says of the time, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OurTime {
    /// Its clock.
    pub(super) clock: u64,
    /// The time to decide by: later than the clock where that was set back, or heard of a later time once.
    pub(super) decides: u64,
}

impl fmt::Display for OurTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.clock)?;
        // The next second may have begun between the two.
        if self.decides <= self.clock + 1 {
            return Ok(());
        }
        write!(f, ", though the policy or the control plane has said {} already", self.decides)
    }
}

impl LinkEnd {
    /// Why there is no link.
    pub(super) fn unconnected(error: WsError, ours: OurTime) -> Self {
        if let Some(mismatch) = PinMismatch::find_in(&error) {
            return Self::TlsKey(*mismatch);
        }
        let WsError::Status { status: StatusCode::UNAUTHORIZED, challenge, .. } = &error else {
            return Self::Connect(error);
        };
        match challenge.as_deref().and_then(GatewayRefusal::parse) {
            Some(GatewayRefusal { reason: RefusalReason::Clock, now: theirs }) => Self::Clock { ours, theirs },
            Some(GatewayRefusal { reason: RefusalReason::PolicyKey, .. }) => Self::StrangePolicyKey,
            Some(GatewayRefusal { reason: RefusalReason::NotEnrolled, .. }) => Self::NotEnrolled,
            None => Self::Unauthenticated { ours },
        }
    }

    /// Whether it may be the time in the assertion that was not accepted.
    pub(super) fn doubts_clock(&self) -> bool {
        matches!(self, Self::Clock { .. } | Self::Unauthenticated { .. })
    }
}

/// The words of the control plane behind ours.
fn said(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_is_told_is_the_machines_and_a_later_time_that_was_heard_is_told_apart() {
        let told = |clock, decides| LinkEnd::Clock { ours: OurTime { clock, decides }, theirs: 5000 }.to_string();
        assert!(told(1000, 1001).contains("ours says 1000, the control plane's 5000"), "{}", told(1000, 1001));
        let words =
            "ours says 1000, though the policy or the control plane has said 9000 already, the control plane's 5000";
        assert!(told(1000, 9000).contains(words), "{}", told(1000, 9000));
    }
}
