//! Shared servers.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{Connection, CreateShare, OpenShare, ServerShare},
    },
    id::ShareId,
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::service::Paging;

/// Which shares.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShareQuery {
    /// Those that ended too.
    #[serde(default)]
    ended: bool,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// Shares given and received by the own organization.
#[utoipa::path(get, path = "/server-shares", tag = "admin", params(ShareQuery),
    responses((status = 200, body = Page<ServerShare>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<ShareQuery>,
) -> ApiResult<Json<Page<ServerShare>>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    Ok(Json(app.service.shares(&actor, query.ended, &paging).await?))
}

/// One share, with the figures of its server.
#[utoipa::path(get, path = "/server-shares/{id}", tag = "admin", params(("id" = ShareId, Path)),
    responses((status = 200, body = ServerShare)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ShareId>,
) -> ApiResult<Tagged<ServerShare>> {
    Ok(Tagged(app.service.share(&actor, id).await?))
}

/// Share an own server with the peer of an agreement, at once.
#[utoipa::path(post, path = "/server-shares", tag = "admin", request_body = CreateShare,
    responses((status = 201, body = ServerShare)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateShare>,
) -> ApiResult<(StatusCode, Tagged<ServerShare>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_share(&actor, body).await?)))
}

/// Open a tunnel to a server that was shared with us.
#[utoipa::path(post, path = "/server-shares/{id}/open", tag = "admin", params(("id" = ShareId, Path)),
    request_body = OpenShare, responses((status = 200, body = Connection)))]
pub(super) async fn open(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ShareId>,
    Body(body): Body<OpenShare>,
) -> ApiResult<Tagged<Connection>> {
    Ok(Tagged(app.service.open_share(&actor, id, body).await?))
}

/// End a share with its tunnels.
#[utoipa::path(post, path = "/server-shares/{id}/end", tag = "admin", params(("id" = ShareId, Path)),
    responses((status = 200, body = ServerShare)))]
pub(super) async fn end(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ShareId>,
) -> ApiResult<Tagged<ServerShare>> {
    Ok(Tagged(app.service.end_share(&actor, id).await?))
}
