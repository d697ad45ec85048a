//! Why there is no link to the control plane, in the words that people read.

use std::time::Duration;

use gateway_net::{
    tls::{PinError, PinMismatch},
    ws::{StatusCode, WsError, WsStreamError},
};
use gateway_proto::api::refusal::{GatewayRefusal, RefusalReason};
use tokio::task::JoinError;

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
         differ by more than 60 s (ours says {now}, Unix seconds)"
    )]
    Unauthenticated { now: u64 },
    #[error(
        "the clocks differ by more than 60 s: ours says {ours}, the control plane's {theirs} (Unix seconds); correct the one \
         that is wrong"
    )]
    Clock { ours: u64, theirs: u64 },
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
    #[error("a task of the link failed")]
    Task(#[from] JoinError),
}

impl LinkEnd {
    /// Why there is no link. `ours`: what the assertion said of the time.
    pub(super) fn unconnected(error: WsError, ours: u64) -> Self {
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
            None => Self::Unauthenticated { now: ours },
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
