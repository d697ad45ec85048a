//! Answers of HTTP-01 (RFC 8555 §8.3): one path, plain HTTP, something to say only while an order is under way. Strangers
//! find the limits of the relay's own door: rates, open connections, time for a request.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;

use crate::accept::LimitAcceptor;

/// A request head that takes longer is no certificate authority's.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Token and key authorization of the challenges under way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens(Arc<Mutex<BTreeMap<String, String>>>);

impl Tokens {
    pub(super) fn answer(&self, token: &str, authorization: &str) {
        self.lock().insert(token.to_owned(), authorization.to_owned());
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves them; ends only with the task, or when the listener fails.
pub(super) async fn serve(listener: Option<TcpListener>, acceptor: LimitAcceptor, tokens: Tokens) {
    let Some(listener) = listener else { return std::future::pending().await };
    let answer = async |State(tokens): State<Tokens>, Path(token): Path<String>| {
        tokens.lock().get(&token).cloned().ok_or(StatusCode::NOT_FOUND)
    };
    let router = Router::new().route("/.well-known/acme-challenge/{token}", get(answer)).with_state(tokens);
    let server = axum_server::Server::<SocketAddr>::from_listener(listener);
    let mut server = server.acceptor(acceptor);
    // One request a connection: nobody keeps one open.
    let mut http = server.http_builder().http1();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = server.serve(router.into_make_service()).await {
        tracing::error!(%error, "the server for HTTP-01 challenges failed");
    }
}
