//! Answers of HTTP-01 (RFC 8555 §8.3): one path, plain HTTP, only while an order is under way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use tokio::net::TcpListener;

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
pub(super) async fn serve(listener: Option<TcpListener>, tokens: Tokens) {
    let Some(listener) = listener else { return std::future::pending().await };
    let answer = async |State(tokens): State<Tokens>, Path(token): Path<String>| {
        tokens.lock().get(&token).cloned().ok_or(StatusCode::NOT_FOUND)
    };
    let router = Router::new().route("/.well-known/acme-challenge/{token}", get(answer)).with_state(tokens);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the server for HTTP-01 challenges failed");
    }
}
