//! The user's end: a local HTTPS port whose connections travel to the owner's gateway, one admin stream each.
//!
//! The port is opened and closed like that of a sender ([`crate::sender`]). While there is no tunnel a connection is held,
//! because the Administrator signs its user out when a connection is refused; so it is while a tunnel turns out to be dead.
//! Until the owner's gateway has accepted the stream, nothing of what the client wrote has left this gateway, so that the
//! stream may be opened anew; afterwards nothing is ever repeated. What is told instead of an answer comes as HTTP, so that
//! the client shows it.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use gateway_net::{
    causes::with_causes,
    tls::{ServerIdentity, local_server_config},
};
use gateway_proto::{
    admin::{answer::own_answer, guard::MAX_EXTENSION_LEN, opening::ActingUser},
    audit::note::{OurReason, RefusedBy, StreamEnding},
    stream::{Answer, RefusalCode, ResetCode, StreamHeader, StreamKind},
};
use quinn::{RecvStream, VarInt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, split},
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info};

use super::acting::acting_user;
use crate::{
    audit::StreamRecord, gate::Permit, peer::Peer, send_half::SendHalf, sender::tunnel_up, traffic::Traffic,
    tunnel::Tunnel,
};

/// A local client that connects also speaks.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The owner's gateway answers a stream at once: nothing is dialled before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between a stream that was lost while it was opened and the next: a tunnel is known to be dead a moment later.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// What is read at once, in bytes.
const PART: usize = 16 << 10;
/// A client that is sending when its answer has come reads it when it has sent everything, and a socket that is closed with unread
/// bytes destroys it. So the rest is read and dropped: as much as the largest body that may pass, and not for ever.
const MAX_DROPPED: u64 = MAX_EXTENSION_LEN;
/// In all.
const DROP_FOR: Duration = Duration::from_secs(60);
/// A client that sends nothing for so long has read its answer, or never will.
const DROP_SILENCE: Duration = Duration::from_secs(5);

/// What the local ports of admin connections share. Cheap to clone.
#[derive(Clone)]
pub struct UserEnd {
    tls: TlsAcceptor,
    /// Address of the local ports.
    pub bind: IpAddr,
    /// How long a connection waits for a tunnel that carries a stream.
    pub hold: Duration,
}

impl std::fmt::Debug for UserEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserEnd").field("bind", &self.bind).field("hold", &self.hold).finish_non_exhaustive()
    }
}

/// Why a local connection got no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum OpenError {
    #[error("no tunnel to the partner's gateway within {0:?}; the partner is offline or no path works")]
    NoTunnel(Duration),
    #[error("the tunnel to the partner was lost")]
    TunnelLost,
    #[error("the partner's gateway did not answer in time")]
    NoAnswer,
    #[error("{0}")]
    Refused(RefusalCode),
}

impl OpenError {
    fn record(&self, record: &StreamRecord) {
        match self {
            Self::NoTunnel(_) => record.refused(RefusedBy::Us, OurReason::NoTunnel),
            Self::TunnelLost => record.refused(RefusedBy::Us, OurReason::TunnelLost),
            Self::NoAnswer => record.refused(RefusedBy::Us, OurReason::NoAnswer),
            Self::Refused(code) => record.refused(RefusedBy::Partner, *code),
        }
    }
}

/// How a carried connection ended, if not cleanly.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error("the local client went away")]
    Client(#[from] io::Error),
    #[error("the partner's gateway ended the stream")]
    Far,
}

impl UserEnd {
    /// With the certificate its ports show.
    pub fn new(identity: &ServerIdentity, bind: IpAddr, hold: Duration) -> Self {
        Self { tls: TlsAcceptor::from(Arc::new(local_server_config(identity))), bind, hold }
    }

    /// Carries one local connection until it or the permission ends; the error says why it was not a clean end.
    pub(crate) async fn carry(
        &self,
        socket: TcpStream,
        permit: Permit,
        peer: &Arc<Peer>,
        (traffic, record): (&Traffic, &StreamRecord),
        trace: u64,
    ) -> Result<(), String> {
        let _open = peer.stream_opened();
        let carrying = self.try_carry(socket, &permit, peer, (traffic, record), trace);
        let carried = permit.allowed.run_until_cancelled(carrying).await;
        carried.unwrap_or_else(|| {
            record.cut();
            Err("the connection is no longer allowed".into())
        })
    }

    async fn try_carry(
        &self,
        socket: TcpStream,
        permit: &Permit,
        peer: &Peer,
        (traffic, record): (&Traffic, &StreamRecord),
        trace: u64,
    ) -> Result<(), String> {
        let ends = socket.peer_addr().and_then(|client| Ok((client, socket.local_addr()?)));
        let (client, local) = ends.map_err(|error| error.to_string())?;
        let acting = tokio::task::spawn_blocking(move || acting_user(client, local)).await;
        let acting = acting.map_err(|error| error.to_string())?;
        let tls = timeout(HANDSHAKE_TIMEOUT, self.tls.accept(socket)).await;
        let spoken = tls.map_err(|_| "the local client did not finish its TLS handshake".to_owned()).and_then(|tls| {
            tls.map_err(|_| "the local client did not agree on TLS (is it using http instead of https?)".to_owned())
        });
        let mut tls = spoken.inspect_err(|_| record.refused(RefusedBy::Us, OurReason::NoTls))?;
        match self.open(permit, peer, &acting, trace).await {
            Ok((send, recv)) => {
                record.opened();
                let carried = carry(tls, send, recv, (traffic, record)).await;
                record.ended(match carried {
                    Ok(_) => StreamEnding::Clean,
                    Err(CarryError::Client(_)) => StreamEnding::ResetHere,
                    Err(CarryError::Far) => StreamEnding::ResetThere,
                });
                end_cleanly(carried.map_err(|error| with_causes(&error))?).await;
                Ok(())
            }
            Err(error) => {
                error.record(record);
                info!(reason = with_causes(&error), "no admin stream");
                // The request is read first: an answer before it would be none.
                let mut request = vec![0; PART];
                if tls.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let _ = tls.write_all(&own_answer(503, &format!("gateway: {error}"), true)).await;
                    let _ = tls.shutdown().await;
                    end_cleanly(tls).await;
                }
                Err(with_causes(&error))
            }
        }
    }

    async fn open(
        &self,
        permit: &Permit,
        peer: &Peer,
        acting: &ActingUser,
        trace: u64,
    ) -> Result<(SendHalf, RecvStream), OpenError> {
        let up = || tunnel_up(peer.tunnel.subscribe());
        opened(self.hold, up, |tunnel: Tunnel| async move { ask(permit, &tunnel, acting, trace).await }).await
    }
}

/// Asks over the tunnel that is up until there is an answer or `hold` is over: after the owner's gateway was lost, a tunnel
/// is dead for seconds before this gateway knows. Only for what may be asked twice: for a stream's header and opening the
/// owner's gateway does nothing but wait for a request, and none is written before its answer.
async fn opened<U, T, Up, Asked>(hold: Duration, up: impl Fn() -> Up, ask: impl Fn(U) -> Asked) -> Result<T, OpenError>
where
    Up: Future<Output = U>,
    Asked: Future<Output = Result<T, OpenError>>,
{
    let until = Instant::now() + hold;
    loop {
        let tunnel = timeout_at(until, up()).await.map_err(|_| OpenError::NoTunnel(hold))?;
        match timeout(ANSWER_TIMEOUT, ask(tunnel)).await.unwrap_or(Err(OpenError::NoAnswer)) {
            Err(error @ (OpenError::TunnelLost | OpenError::NoAnswer)) if Instant::now() < until => {
                debug!(reason = with_causes(&error), "the admin stream is opened anew");
                sleep(RETRY_PAUSE).await;
            }
            result => return result,
        }
    }
}

async fn ask(
    permit: &Permit,
    tunnel: &Tunnel,
    acting: &ActingUser,
    trace: u64,
) -> Result<(SendHalf, RecvStream), OpenError> {
    let (send, mut recv) = tunnel.connection().open_bi().await.map_err(|_| OpenError::TunnelLost)?;
    let mut send = SendHalf::new(send, tunnel);
    let id = permit.entry.id;
    let exporter = tunnel.exporter(id).ok_or(OpenError::TunnelLost)?;
    let secret = permit.secret().ok_or(OpenError::Refused(RefusalCode::NotAllowed))?;
    let header = StreamHeader { kind: StreamKind::Admin, connection: id, trace }.encode(secret, &exporter);
    let opening = [&header[..], &acting.encode()].concat();
    send.write_all(&opening).await.map_err(|_| OpenError::TunnelLost)?;
    let mut answer = [0; 2];
    recv.read_exact(&mut answer).await.map_err(|_| OpenError::TunnelLost)?;
    match Answer::from_code(answer[0]) {
        Answer::Accepted => Ok((send, recv)),
        Answer::Refused(code) => Err(OpenError::Refused(code)),
    }
}

/// Copies both ways, until the answers have ended. A stream that is cut resets the local socket: it lingers zero seconds until
/// both ends were clean.
async fn carry(
    tls: TlsStream<TcpStream>,
    mut send: SendHalf,
    mut recv: RecvStream,
    (traffic, record): (&Traffic, &StreamRecord),
) -> Result<TlsStream<TcpStream>, CarryError> {
    let (mut reader, mut writer) = split(tls);
    let up = async {
        let mut part = vec![0; PART];
        loop {
            // A client that closes without TLS's own end has closed all the same.
            let read = match reader.read(&mut part).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                read => read?,
            };
            if read == 0 {
                send.finish();
                return Ok(());
            }
            send.write_all(&part[..read]).await.map_err(|_| CarryError::Far)?;
            traffic.sent(read);
            record.sent(read);
        }
    };
    let down = async {
        let mut part = vec![0; PART];
        loop {
            let Some(read) = recv.read(&mut part).await.map_err(|_| CarryError::Far)? else { break };
            writer.write_all(&part[..read]).await?;
            writer.flush().await?;
            traffic.received(read);
            record.received(read);
        }
        Ok::<_, CarryError>(writer.shutdown().await?)
    };
    let result = {
        tokio::pin!(up, down);
        // The owner's gateway ends the conversation; a client that ended its side still gets the answer.
        tokio::select! {
            result = &mut down => result,
            result = &mut up => match result {
                Ok(()) | Err(CarryError::Far) => down.await,
                Err(error) => Err(error),
            },
        }
    };
    match result {
        Ok(()) => Ok(reader.unsplit(writer)),
        Err(error) => {
            debug!(%error, "admin stream cut");
            let _ = recv.stop(VarInt::from_u32(ResetCode::SocketReset as u32));
            Err(error)
        }
    }
}

/// Closes what was answered, so that the client can read the answer.
async fn end_cleanly(mut tls: TlsStream<TcpStream>) {
    let _ = socket2::SockRef::from(tls.get_ref().0).set_linger(None);
    drop_rest(&mut tls).await;
}

/// Reads what a client still sends, within [`MAX_DROPPED`], [`DROP_FOR`] and [`DROP_SILENCE`]. How much that was.
async fn drop_rest(client: &mut (impl AsyncRead + Unpin)) -> u64 {
    let (until, mut part, mut dropped) = (Instant::now() + DROP_FOR, vec![0; PART], 0_u64);
    while dropped < MAX_DROPPED {
        let wait = until.min(Instant::now() + DROP_SILENCE);
        match timeout_at(wait, client.read(&mut part)).await {
            Ok(Ok(read)) if read > 0 => dropped += read as u64,
            Ok(_) | Err(_) => break,
        }
    }
    dropped
}

#[cfg(test)]
mod tests;
