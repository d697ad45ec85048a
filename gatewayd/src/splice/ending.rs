//! How a spliced stream ended, and what that is called in the audit log and means for its messages.

use std::time::Duration;

use gateway_proto::{
    audit::note::{OurReason, RefusedBy, StreamEnding},
    mllp::End,
    places::{MuteEnd, NoPlace},
    stream::{RefusalCode, ResetCode},
};
use quinn::{ReadError, WriteError};

use super::{Opening, SpliceContext};
use crate::{places::TURNED_AWAY, traffic::Role};

/// How a spliced stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// Our engine's socket failed or was reset.
    #[error("the engine on this side reset its connection")]
    Engine,
    /// The far side reset the stream.
    #[error("the partner's side ended the stream: {0}")]
    Peer(ResetCode),
    /// The tunnel itself ended.
    #[error("the tunnel to the partner was lost")]
    TunnelLost,
    /// The far side finished while a message was unacknowledged.
    #[error("the partner closed its connection without acknowledging a message")]
    Unacknowledged,
    /// Our engine waited for an acknowledgement for so long, and closed; the far side did so after it.
    #[error("our engine closed its connection {:.1} s after its last byte, without an acknowledgement of its message", .0.as_secs_f64())]
    EngineGaveUp(Duration),
    /// The far side closed an idle MLLP conversation that our engine keeps open.
    #[error("the partner closed its connection; the engine's next message goes on a new one")]
    PartnerClosed,
    /// Our engine closed, and the far side neither answered nor closed for long.
    #[error("the partner left a closed connection half open")]
    HalfOpen,
    /// The policy stopped allowing it.
    #[error("the connection is no longer allowed")]
    NotAllowed,
    /// Nothing passed for longer than the grant allows.
    #[error("no byte passed for longer than the receive timeout of the grant; both engines' connections were reset")]
    Silent,
    /// The far side refused the stream; of what our engine sent meanwhile, nothing was delivered.
    #[error("{0}")]
    Refused(RefusalCode),
    /// The far side has no place for us in its engine's listener.
    #[error("the partner's listener is full: {0}")]
    ListenerFull(NoPlace),
    /// The far side did not answer the stream's header in time.
    #[error("the partner's gateway did not answer in time")]
    NoAnswer,
}

impl SpliceContext {
    /// Our engine ended a connection on which it had said nothing: its listener may have been full.
    pub(super) fn engine_was_mute(&self, end: MuteEnd) {
        let Opening::OwesAnswer { reached_at, .. } = &self.opening else { return };
        if end.is_turned_away(reached_at.elapsed()) {
            self.engine_says.look_again();
            self.traffic.note_problem(TURNED_AWAY);
        }
    }

    pub(super) fn record_end(&self, result: Result<(), SpliceError>) {
        let ending = match result {
            Ok(()) => StreamEnding::Clean,
            Err(SpliceError::Engine) => StreamEnding::ResetHere,
            Err(SpliceError::Peer(ResetCode::NotAllowed)) => StreamEnding::RevokedThere,
            Err(SpliceError::Peer(ResetCode::ShuttingDown) | SpliceError::TunnelLost) => StreamEnding::TunnelLost,
            Err(SpliceError::Peer(
                ResetCode::SocketReset | ResetCode::Refused | ResetCode::Protocol | ResetCode::GaveUp,
            )) => StreamEnding::ResetThere,
            Err(SpliceError::Unacknowledged | SpliceError::EngineGaveUp(_)) => StreamEnding::Unacknowledged,
            Err(SpliceError::PartnerClosed) => StreamEnding::ClosedThere,
            Err(SpliceError::HalfOpen) => StreamEnding::HalfOpen,
            Err(SpliceError::Silent | SpliceError::Peer(ResetCode::Silent)) => StreamEnding::Silent,
            Err(SpliceError::NotAllowed) => return self.record.cut(),
            Err(SpliceError::Refused(code)) => return self.record.refused(RefusedBy::Partner, code),
            Err(SpliceError::ListenerFull(_)) => {
                return self.record.refused(RefusedBy::Partner, RefusalCode::ListenerFull);
            }
            Err(SpliceError::NoAnswer) => return self.record.refused(RefusedBy::Us, OurReason::NoAnswer),
        };
        self.record.over(ending);
    }

    /// Who ended the stream, for what a repetition of its messages means, and whether anybody waits for an answer. `engine_finished`:
    /// ours closed its direction.
    pub(super) fn end(&self, result: Result<(), SpliceError>, engine_finished: bool) -> End {
        match result {
            Err(SpliceError::Refused(_) | SpliceError::ListenerFull(_)) => End::Refused,
            // As the far gateway takes it, which saw both sides close in order.
            Ok(()) | Err(SpliceError::EngineGaveUp(_)) => End::ByTheSender,
            Err(SpliceError::Engine | SpliceError::HalfOpen) if self.observer.role() == Role::Sender => {
                End::ByTheSender
            }
            Err(SpliceError::Engine | SpliceError::HalfOpen) => End::ByTheReceiver,
            // Of the causes at the far side, its engine is by far the most frequent; but when ours closed first, the far
            // gateway resets what is unacknowledged. A gateway that gave up waiting for our answer says so.
            Err(SpliceError::Peer(ResetCode::SocketReset))
                if self.observer.role() == Role::Listener && !engine_finished =>
            {
                End::ByTheSender
            }
            Err(SpliceError::Peer(ResetCode::SocketReset)) if self.observer.role() == Role::Sender => {
                End::ByTheReceiver
            }
            Err(SpliceError::Unacknowledged | SpliceError::PartnerClosed) => End::ByTheReceiver,
            Err(
                SpliceError::Peer(_)
                | SpliceError::TunnelLost
                | SpliceError::NoAnswer
                | SpliceError::NotAllowed
                | SpliceError::Silent,
            ) => {
                // Our engine had closed before, and whatever took the answer then took it from nobody.
                let took_from_nobody = self.observer.role() == Role::Sender && engine_finished;
                if took_from_nobody { End::ByTheSender } else { End::Otherwise }
            }
        }
    }
}

pub(super) fn read_error(error: ReadError) -> SpliceError {
    match error {
        ReadError::Reset(code) => SpliceError::Peer(ResetCode::from_u64(code.into_inner())),
        ReadError::ConnectionLost(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => SpliceError::TunnelLost,
    }
}

pub(super) fn write_error(error: WriteError) -> SpliceError {
    match error {
        WriteError::Stopped(code) => SpliceError::Peer(ResetCode::from_u64(code.into_inner())),
        WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            SpliceError::TunnelLost
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gateway_proto::limits::ChannelLimits;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{engine::EngineWatch, observer::Observer, timer::Moments, traffic::Traffic};

    fn end_of(role: Role, error: SpliceError, engine_finished: bool) -> End {
        let traffic = Arc::new(Traffic::default());
        let context = SpliceContext {
            observer: Observer::new(traffic.clone(), role, "http", true),
            traffic,
            record: Box::default(),
            allowed: CancellationToken::new(),
            opening: Opening::OwesAnswer { reached_at: Instant::now(), moments: Moments::default() },
            engine_says: EngineWatch::none(),
            limits: ChannelLimits::default(),
        };
        context.end(Err(error), engine_finished)
    }

    #[test]
    fn a_client_that_closed_before_the_tunnel_was_lost_waits_for_no_answer() {
        for error in [
            SpliceError::Peer(ResetCode::ShuttingDown),
            SpliceError::Peer(ResetCode::NotAllowed),
            SpliceError::TunnelLost,
            SpliceError::NoAnswer,
            SpliceError::NotAllowed,
            SpliceError::Silent,
        ] {
            assert_eq!(end_of(Role::Sender, error, true), End::ByTheSender, "{error}");
            assert_eq!(end_of(Role::Sender, error, false), End::Otherwise, "{error}");
            assert_eq!(end_of(Role::Listener, error, true), End::Otherwise, "{error}");
        }
    }
}
