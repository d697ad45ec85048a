//! Connections.

use axum::{Json, extract::State};
use gateway_proto::{
    api::platform::{Connection, ConnectionPage, RotateSecret},
    id::{AgreementId, ConnectionId, ServerId},
    peering::ConnectionStatus,
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::{
    service::{ConnectionChange, Paging},
    storage::ConnectionFilter,
};

/// Which connections.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectionQuery {
    /// Those that ended too.
    #[serde(default)]
    ended: bool,
    /// `p2p` or `admin` connections only.
    kind: Option<KindFilter>,
    /// Those of one agreement.
    agreement: Option<AgreementId>,
    /// Those with an end at one server.
    server: Option<ServerId>,
    /// Those in one status.
    status: Option<ConnectionStatus>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// A kind of connection, as far as lists tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum KindFilter {
    /// Channel data.
    P2p,
    /// The engine's admin API.
    Admin,
}

/// Connections of the own organization.
#[utoipa::path(get, path = "/connections", tag = "connections", params(ConnectionQuery),
    responses((status = 200, body = ConnectionPage)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<ConnectionQuery>,
) -> ApiResult<Json<ConnectionPage>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    let filter = ConnectionFilter {
        ended: query.ended,
        admin: query.kind.map(|kind| kind == KindFilter::Admin),
        agreement: query.agreement,
        server: query.server,
        status: query.status,
    };
    Ok(Json(app.service.connections(&actor, &filter, &paging).await?))
}

/// One connection.
#[utoipa::path(get, path = "/connections/{id}", tag = "connections", params(("id" = ConnectionId, Path)),
    responses((status = 200, body = Connection)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ConnectionId>,
) -> ApiResult<Tagged<Connection>> {
    Ok(Tagged(app.service.connection(&actor, id).await?))
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
) -> ApiResult<Tagged<Connection>> {
    let change = match verb {
        ConnectionVerb::Activate => ConnectionChange::Activate,
        ConnectionVerb::Pause => ConnectionChange::Pause,
        ConnectionVerb::Resume => ConnectionChange::Resume,
        ConnectionVerb::Retry => ConnectionChange::Retry,
        ConnectionVerb::Terminate => ConnectionChange::Terminate,
    };
    Ok(Tagged(app.service.change_connection(&actor, id, change).await?))
}

/// Replace the secret of a connection; open streams go on, and the old one is accepted for a while.
#[utoipa::path(post, path = "/connections/{id}/rotate-secret", tag = "connections",
    params(("id" = ConnectionId, Path)), request_body = RotateSecret, responses((status = 200, body = Connection)))]
pub(super) async fn rotate_secret(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ConnectionId>,
    Body(body): Body<RotateSecret>,
) -> ApiResult<Tagged<Connection>> {
    Ok(Tagged(app.service.rotate_secret(&actor, id, body).await?))
}
