//! Liveness, readiness, metrics.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use super::{App, problem::ApiResult};
use crate::{metrics::Metrics, service::ServiceError};

/// The process answers.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// The process can do its work: the storage answers, and it is not shutting down.
pub(super) async fn ready(State(app): State<App>) -> ApiResult<&'static str> {
    if app.shutdown.is_requested() {
        return Err(ServiceError::Busy.into());
    }
    app.service.ready().await?;
    Ok("ok\n")
}

/// The metrics, for the listener of their own.
pub fn metrics_router(metrics: Arc<Metrics>) -> Router {
    Router::new().route("/metrics", get(text)).with_state(metrics)
}

async fn text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.text() {
        Some(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
