//! Connections.

use axum::{Json, extract::State};
use gateway_proto::{
    api::{Page, platform::Connection},
    id::ConnectionId,
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, SignedIn},
    problem::ApiResult,
};
use crate::service::{ConnectionChange, Paging};

/// Which connections.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectionQuery {
    /// Those that ended too.
    #[serde(default)]
    ended: bool,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// Connections of the own organization.
#[utoipa::path(get, path = "/connections", tag = "connections", params(ConnectionQuery),
    responses((status = 200, body = Page<Connection>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<ConnectionQuery>,
) -> ApiResult<Json<Page<Connection>>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    Ok(Json(app.service.connections(&actor, query.ended, &paging).await?))
}

/// One connection.
#[utoipa::path(get, path = "/connections/{id}", tag = "connections", params(("id" = ConnectionId, Path)),
    responses((status = 200, body = Connection)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ConnectionId>,
) -> ApiResult<Json<Connection>> {
    Ok(Json(app.service.connection(&actor, id).await?))
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConnectionVerb {
    Activate,
    Pause,
    Resume,
    Retry,
    Terminate,
}

/// Activate, pause, resume, retry or terminate a connection.
#[utoipa::path(post, path = "/connections/{id}/{act}", tag = "connections",
    params(("id" = ConnectionId, Path), ("act" = ConnectionVerb, Path)),
    responses((status = 200, body = Connection)))]
pub(super) async fn act(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At((id, verb)): At<(ConnectionId, ConnectionVerb)>,
) -> ApiResult<Json<Connection>> {
    let change = match verb {
        ConnectionVerb::Activate => ConnectionChange::Activate,
        ConnectionVerb::Pause => ConnectionChange::Pause,
        ConnectionVerb::Resume => ConnectionChange::Resume,
        ConnectionVerb::Retry => ConnectionChange::Retry,
        ConnectionVerb::Terminate => ConnectionChange::Terminate,
    };
    Ok(Json(app.service.change_connection(&actor, id, change).await?))
}
