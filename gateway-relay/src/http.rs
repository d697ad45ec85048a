//! The HTTP surfaces: `/relay` over TLS, and metrics and health in plain text on loopback.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, State, WebSocketUpgrade},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE},
    },
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use gateway_proto::{
    relay::{MAX_FRAME, PATH, SUB_PROTOCOL},
    twice::{INSTANCE_HEADER, Instance},
};

use crate::{app::Shared, client};

/// Per link and direction: room for a full frame, little enough for ten thousand links.
const READ_BUFFER: usize = 32 << 10;
const WRITE_BUFFER: usize = 64 << 10;

pub(crate) fn relay(shared: Arc<Shared>) -> Router {
    Router::new().route(PATH, get(upgrade)).with_state(shared).layer(map_response(one_request))
}

/// Who was not upgraded has had its answer: a stranger's connection does not stay for another question.
async fn one_request(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

pub(crate) fn metrics(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(shared)
}

async fn upgrade(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(observed): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if shared.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping\n").into_response();
    }
    let upgrade = upgrade
        .protocols([SUB_PROTOCOL])
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    if upgrade.selected_protocol().is_none() {
        let message = format!("this is a relay for gateways: ask for the sub-protocol {SUB_PROTOCOL}\n");
        return (StatusCode::BAD_REQUEST, message).into_response();
    }
    // Older gateways do not say which process they are.
    let instance = headers.get(INSTANCE_HEADER).and_then(|text| text.to_str().ok()?.parse::<Instance>().ok());
    // The tracker counts the link from here on, so that a drain waits for it.
    let token = shared.links.token();
    upgrade.on_upgrade(move |socket| async move {
        client::serve(socket, observed, instance, shared).await;
        drop(token);
    })
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    shared.metrics.clients.set(i64::try_from(shared.clients.len()).unwrap_or(i64::MAX));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], shared.metrics.text()).into_response()
}

/// Ready means: new gateways may come.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        "ready\n".into_response()
    }
}
