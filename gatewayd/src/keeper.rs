//! Keeps the tunnel to one peer: dials or is dialled, runs it, and does so again when it ends.
//!
//! One tunnel per pair of gateways, dialled by the one with the smaller key, while at least one connection of the pair
//! may carry data. Nothing is latched: after every end the next attempt follows, with jittered backoff; at once when the peer
//! shows itself or another path is there.

mod handover;

use std::{pin::pin, sync::Arc, time::Duration};

use gateway_net::{causes::with_causes, entropy::random_u32};
use gateway_proto::{backoff::Backoff, id::RelayId, identity::GatewayPublicKey};
pub use handover::Handover;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    listener::{ListenerContext, serve},
    peer::{Peer, TunnelProblem},
    proof::{HeartbeatError, Proof, heartbeat},
    tunnel::{DialError, SHUTTING_DOWN, Tunnel, TunnelEndpoint},
};

/// A handshake takes one round trip of the path and survives a few losses within this.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes of the path that begin a handshake anew; after that it is left to its timers.
const MAX_REDIALS: u32 = 3;
/// A tunnel that no connection wants any more is closed after this, so that resets of its streams arrive first.
const LINGER: Duration = Duration::from_millis(500);
/// A tunnel that stood this long was no accident: after its end the next dial comes without delay.
const PROVEN_ALIVE: Duration = Duration::from_secs(5);
/// First and longest pause between two dials. A dial takes [`HANDSHAKE_TIMEOUT`] where nobody answers, over every relay there is.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// What a gateway says to a peer with which it has nothing to do any more, also because it is stopped in order.
const REMOVED: &[u8] = b"peer removed";

/// Keeps the tunnel to one peer.
#[derive(Debug)]
pub struct Keeper {
    /// The peer.
    pub peer: Arc<Peer>,
    /// Our key: decides who dials.
    pub local: GatewayPublicKey,
    /// QUIC.
    pub endpoint: TunnelEndpoint,
    /// The newest tunnel the peer dialled, already authenticated.
    pub inbound: Handover<Connection>,
    /// For streams the peer opens.
    pub listener: ListenerContext,
    /// Our home relay, which the peer is told.
    pub home: watch::Receiver<Option<RelayId>>,
}

/// Why there is no tunnel now.
#[derive(Debug, thiserror::Error)]
enum TunnelError {
    #[error("cannot dial")]
    Dial(#[from] DialError),
    #[error("the partner's gateway did not answer within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("the handshake with the partner's gateway failed")]
    Handshake(#[source] quinn::ConnectionError),
    #[error("the tunnel ended: {0}")]
    Ended(quinn::ConnectionError),
    #[error("the tunnel's control stream failed")]
    Control(#[from] HeartbeatError),
    #[error("no connection may carry data now")]
    Unwanted,
}

impl TunnelError {
    fn problem(&self) -> TunnelProblem {
        TunnelProblem { text: with_causes(self), is_silence: self.is_silence() }
    }

    /// Whether the peer said nothing, or took its leave.
    fn is_silence(&self) -> bool {
        use quinn::ConnectionError::{ApplicationClosed, Reset, TimedOut};
        match self {
            Self::Timeout => true,
            Self::Handshake(error) => matches!(error, TimedOut),
            // A gateway that was restarted ends the tunnel of its former run.
            Self::Ended(TimedOut | Reset) => true,
            Self::Ended(error) => {
                matches!(error, ApplicationClosed(close) if close.reason == SHUTTING_DOWN || close.reason == REMOVED)
            }
            Self::Dial(_) | Self::Control(_) | Self::Unwanted => false,
        }
    }
}

impl Keeper {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep()).await;
        if let Some(tunnel) = self.peer.tunnel.send_replace(None) {
            tunnel.connection().close(VarInt::from_u32(0), REMOVED);
        }
    }

    async fn keep(&mut self) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let (mut wanted, mut signs) = (self.peer.wanted.subscribe(), self.peer.signs());
        loop {
            if wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
            // A sign during the dial counts too: its last packet may have left before.
            signs.mark_unchanged();
            let mut up_since = None;
            let ended = self.one_tunnel(&mut up_since).await;
            // The dial itself does not count: one to nobody takes as long.
            if up_since.is_some_and(|since: Instant| since.elapsed() >= PROVEN_ALIVE) {
                backoff.reset();
            }
            match ended {
                // Once it is wanted again, somebody waits.
                Err(TunnelError::Unwanted) => continue,
                Err(error @ (TunnelError::Ended(_) | TunnelError::Control(_))) => {
                    info!(peer = %self.peer.key.short(), reason = with_causes(&error), "tunnel down");
                    self.peer.set_problem(Some(error.problem()));
                }
                Err(error) => {
                    debug!(peer = %self.peer.key.short(), reason = with_causes(&error), "no tunnel yet");
                    self.peer.set_problem(Some(error.problem()));
                }
                Ok(never) => match never {},
            }
            // A tunnel that the peer dials is taken at once; the pause is for our own dialling.
            if self.dials() {
                tokio::select! {
                    () = sleep(backoff.next_delay(random_u32())) => {}
                    Ok(()) = signs.changed() => {}
                    () = self.peer.path_moved.notified() => {}
                }
            }
        }
    }

    fn dials(&self) -> bool {
        self.peer.is_self || self.local < self.peer.key
    }

    /// One tunnel from its making to its end, or several where the peer replaces it; `up_since` is told when the first is up.
    async fn one_tunnel(&self, up_since: &mut Option<Instant>) -> Result<std::convert::Infallible, TunnelError> {
        let mut next = self.next_tunnel().await?;
        loop {
            let Established { connection, control: (send, recv) } = next;
            info!(peer = %self.peer.key.short(), "tunnel up");
            up_since.get_or_insert_with(Instant::now);
            self.peer.set_problem(None);
            let tunnel = Tunnel::new(connection.clone());
            self.peer.tunnel.send_replace(Some(tunnel.clone()));
            let dials = self.dials();
            let end = tokio::select! {
                // A restarted peer ends the former tunnel with its first packets for that, and has dialled meanwhile: it takes over, and
                // nothing has failed.
                biased;
                newer = self.inbound.take(), if !dials => End::Replaced(newer),
                error = heartbeat(&connection, (send, recv), &self.peer, &self.peer.proof, self.home.clone(), dials) =>
                    End::Failed(connection.close_reason().map_or_else(|| error.into(), TunnelError::Ended)),
                () = serve(&tunnel, &self.peer, &self.listener) =>
                    End::Failed(TunnelError::Ended(connection.closed().await)),
                reason = connection.closed() => End::Failed(TunnelError::Ended(reason)),
                () = unwanted(self.peer.wanted.subscribe()) => End::Failed(TunnelError::Unwanted),
            };
            // Also when the peer restarted: new streams wait for what it dialled, and not on the dead one.
            self.drop_tunnel(&connection);
            match end {
                End::Replaced(newer) => next = self.newest(newer).await?,
                End::Failed(error) => return Err(error),
            }
        }
    }

    fn drop_tunnel(&self, connection: &Connection) {
        self.peer.tunnel.send_replace(None);
        connection.close(VarInt::from_u32(0), b"tunnel ended");
    }

    async fn next_tunnel(&self) -> Result<Established, TunnelError> {
        if self.dials() {
            let mut reachable = self.peer.reachable.subscribe();
            let mut wanted = self.peer.wanted.subscribe();
            tokio::select! {
                reached = reachable.wait_for(|reachable| *reachable) => drop(reached),
                _ = wanted.wait_for(|wanted| !wanted) => return Err(TunnelError::Unwanted),
            }
            // While it lives the path is asked whether it still answers: a handshake into a dead one would find out nothing.
            let _dialling = self.peer.dial_begins();
            let dialled = timeout(HANDSHAKE_TIMEOUT, self.dial()).await;
            let connection = dialled.map_err(|_| TunnelError::Timeout)??;
            let control = connection.open_bi().await.map_err(TunnelError::Ended)?;
            Ok(Established { connection, control })
        } else {
            let mut wanted = self.peer.wanted.subscribe();
            let connection = tokio::select! {
                connection = self.inbound.take() => connection,
                _ = wanted.wait_for(|wanted| !wanted) => return Err(TunnelError::Unwanted),
            };
            self.newest(connection).await
        }
    }

    /// The newest tunnel that the peer dialled: one that comes while another says nothing yet takes its place.
    async fn newest(&self, mut newest: Connection) -> Result<Established, TunnelError> {
        loop {
            tokio::select! {
                biased;
                newer = self.inbound.take() => {
                    newest.close(VarInt::from_u32(0), b"replaced by a newer tunnel");
                    newest = newer;
                }
                established = control_of(newest.clone()) => return established,
            }
        }
    }
}

impl Keeper {
    /// A handshake whose packets went a way that was left in the meantime would wait for its timer: it is begun anew.
    async fn dial(&self) -> Result<Connection, TunnelError> {
        for _ in 0..MAX_REDIALS {
            let mut moved = pin!(self.peer.path_moved.notified());
            moved.as_mut().enable();
            tokio::select! {
                biased;
                dialled = self.endpoint.dial(self.peer.key, &self.peer.path_epoch)? => {
                    return dialled.map_err(TunnelError::Handshake);
                }
                () = moved => {}
            }
        }
        self.endpoint.dial(self.peer.key, &self.peer.path_epoch)?.await.map_err(TunnelError::Handshake)
    }
}

struct Established {
    connection: Connection,
    control: (SendStream, RecvStream),
}

enum End {
    Failed(TunnelError),
    Replaced(Connection),
}

/// The first stream of a tunnel that was dialled to us is its control stream.
async fn control_of(connection: Connection) -> Result<Established, TunnelError> {
    let control = timeout(HANDSHAKE_TIMEOUT, connection.accept_bi())
        .await
        .map_err(|_| TunnelError::Timeout)?
        .map_err(TunnelError::Ended)?;
    Ok(Established { connection, control })
}

/// The other end of a tunnel from this gateway to itself: answers heartbeats and serves streams until it closes.
pub async fn serve_self(connection: Connection, peer: Arc<Peer>, listener: ListenerContext) {
    let Ok(Established { connection, control: (send, recv) }) = control_of(connection).await else { return };
    let (answered, tunnel) = (Proof::default(), Tunnel::new(connection.clone()));
    // Nobody looks for a way from here to here.
    let home = watch::Sender::new(None).subscribe();
    tokio::select! {
        _ = heartbeat(&connection, (send, recv), &peer, &answered, home, false) => {}
        () = serve(&tunnel, &peer, &listener) => {}
    }
    connection.close(VarInt::from_u32(0), b"tunnel ended");
}

/// Resolves when no connection has wanted the tunnel for a moment.
async fn unwanted(mut wanted: watch::Receiver<bool>) {
    loop {
        if wanted.wait_for(|wanted| !wanted).await.is_err() {
            return;
        }
        if timeout(LINGER, wanted.wait_for(|wanted| *wanted)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
