//! The two clients: [`Control`] for the control plane and [`Daemon`] for gatewayd. Both speak HTTP + JSON; what is common (limits,
//! errors, problem documents) is in [`Http`].

mod control;
mod daemon;

use std::{error::Error, io, path::PathBuf, time::Duration};

pub(crate) use control::{Control, Credential};
pub(crate) use daemon::Daemon;
use gateway_net::{
    http::{CONNECT_TIMEOUT, HttpSetupError},
    proxy::ProxyEnvironmentError,
    tls::{PinMismatch, is_unknown_certificate},
};
use gateway_proto::api::Problem;
use reqwest::{RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// A page of the largest lists is far below.
const MAX_BODY: usize = 16 << 20;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Understood, and refused.
    #[error("{} [{}]{}", .0.detail, .0.code, request_note(.0))]
    Refused(Problem),
    /// The session is over or was never good.
    #[error("{} [{}]: sign in again with `gateway-ctl login`", .0.detail, .0.code)]
    SessionRefused(Problem),
    /// Another key than the pinned one.
    #[error("TLS pin mismatch at {address}")]
    Pin {
        /// Whom we asked.
        address: String,
        /// The two pins.
        source: PinMismatch,
    },
    /// A certificate of its own, and no pin to know it by.
    #[error(
        "the certificate of {address} is vouched for by no public authority; a control plane with a key of its own is known by \
         the pin that it prints when it is ready: give it with --pin, or its ready.json with --control-ready-file"
    )]
    UnknownCertificate {
        /// Whom we asked.
        address: String,
        /// Why.
        source: reqwest::Error,
    },
    /// No connection, or it broke.
    #[error("cannot reach {address}")]
    Transport {
        /// Whom we asked.
        address: String,
        /// Why.
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer within {} s", limit.as_secs())]
    Timeout {
        /// Whom we asked.
        address: String,
        /// How long we waited.
        limit: Duration,
    },
    /// Nobody behind the Unix socket.
    #[error(
        "daemon not running: socket {}: nobody answers there; start gatewayd, or name the socket it has (--socket or \
         GATEWAYD_SOCKET; gatewayd.sock in its state_dir unless its configuration says otherwise)",
        path.display()
    )]
    DaemonNotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is not ours to open.
    #[error("not allowed to open the socket {}: run as root or as the user gatewayd runs as", path.display())]
    DaemonForbidden {
        /// The socket.
        path: PathBuf,
    },
    /// An answer that is none of ours.
    #[error("{address} answered HTTP {status} without a reason: is this the right address?")]
    Unexpected {
        /// Whom we asked.
        address: String,
        /// The status.
        status: StatusCode,
    },
    /// An answer we cannot read.
    #[error("the answer of {address} cannot be read: is gateway-ctl older than what it talks to?")]
    Decode {
        /// Whom we asked.
        address: String,
        /// Where it departs from the form.
        source: serde_json::Error,
    },
    /// More than any good answer.
    #[error("the answer of {address} has no end: stopped reading")]
    TooLarge {
        /// Whom we asked.
        address: String,
    },
    /// The client itself.
    #[error(transparent)]
    Setup(#[from] HttpSetupError),
    /// The proxy of the environment.
    #[error(transparent)]
    Proxy(#[from] ProxyEnvironmentError),
}

impl ClientError {
    /// Whether the answer is no, rather than that there was none. "Not now" is no answer: the same call may succeed later.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(problem) | Self::SessionRefused(problem) => problem.status < 500 && problem.status != 429,
            Self::Pin { .. }
            | Self::UnknownCertificate { .. }
            | Self::Transport { .. }
            | Self::Timeout { .. }
            | Self::DaemonNotRunning { .. }
            | Self::DaemonForbidden { .. }
            | Self::Unexpected { .. }
            | Self::Decode { .. }
            | Self::TooLarge { .. }
            | Self::Setup(_)
            | Self::Proxy(_) => false,
        }
    }
}

/// For faults of the server its operator needs the request's id.
fn request_note(problem: &Problem) -> String {
    match &problem.request_id {
        Some(id) if problem.status >= 500 => format!(" (request {id})"),
        Some(_) | None => String::new(),
    }
}

/// What both clients do alike.
#[derive(Debug)]
struct Http {
    client: reqwest::Client,
    /// Before every path.
    base: String,
    /// Whom we ask, for errors.
    address: String,
    /// The Unix socket, if it is one.
    socket: Option<PathBuf>,
}

impl Http {
    /// Sends a request and reads its answer as `T`.
    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder, limit: Duration) -> Result<T, ClientError> {
        let body = self.send(request, limit).await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Decode { address: self.address.clone(), source })
    }

    /// Sends a request and returns the body of its good answer.
    async fn send(&self, request: RequestBuilder, limit: Duration) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let failed = |error| self.transport(error, limit);
        let mut response = request.timeout(limit).send().await.map_err(failed)?;
        let status = response.status();
        // Answers can hold session tokens: wiped after use.
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(ClientError::TooLarge { address: self.address.clone() });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Problem>(&body) {
            // What HTTP says counts: a proxy in between reads it too.
            Ok(problem) => Err(ClientError::Refused(Problem { status: status.as_u16(), ..problem })),
            Err(_) => Err(ClientError::Unexpected { address: self.address.clone(), status }),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn transport(&self, error: reqwest::Error, limit: Duration) -> ClientError {
        if let Some(source) = PinMismatch::find_in(&error).copied() {
            return ClientError::Pin { address: self.address.clone(), source };
        }
        if let (Some(path), Some(kind)) = (self.socket.clone(), io_kind(&error)) {
            if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                return ClientError::DaemonNotRunning { path };
            }
            if kind == io::ErrorKind::PermissionDenied {
                return ClientError::DaemonForbidden { path };
            }
        }
        if is_unknown_certificate(&error) {
            return ClientError::UnknownCertificate { address: self.address.clone(), source: error.without_url() };
        }
        if error.is_timeout() {
            // Whoever did not finish the handshake had less time than whoever does not answer.
            let limit = if error.is_connect() { limit.min(CONNECT_TIMEOUT) } else { limit };
            return ClientError::Timeout { address: self.address.clone(), limit };
        }
        ClientError::Transport { address: self.address.clone(), source: error.without_url() }
    }
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use gateway_net::{http::client_builder, tls::ServerTrust};

    use super::*;

    #[tokio::test]
    async fn whoever_does_not_finish_the_handshake_is_told_to_have_had_the_time_for_that() {
        // The system takes the connection, and nobody ever says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://{}", silent.local_addr().unwrap());
        let builder = client_builder(ServerTrust::WebPki, None).connect_timeout(Duration::from_millis(50));
        let http = Http { client: builder.build().unwrap(), base: address.clone(), address, socket: None };
        let error = http.send(http.client.get(http.url("/")), Duration::from_secs(30)).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout { limit, .. } if limit == CONNECT_TIMEOUT), "{error}");
    }
}
