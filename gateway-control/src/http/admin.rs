//! Admin connections: offer, approve, accept, decline. What comes after is the same as for every connection.

use axum::{extract::State, http::StatusCode};
use gateway_proto::{
    api::platform::{AcceptAdmin, Connection, EnterAdmin, OfferAdmin},
    id::ConnectionId,
};

use super::{
    App,
    extract::{At, Body, SignedIn, Tagged},
    problem::ApiResult,
};

/// Offer a partner the engine's admin API of an own server.
#[utoipa::path(post, path = "/admin-connections", tag = "admin", request_body = OfferAdmin,
    responses((status = 201, body = Connection)))]
pub(super) async fn offer(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<OfferAdmin>,
) -> ApiResult<(StatusCode, Tagged<Connection>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.offer_admin(&actor, body).await?)))
}

/// Approve an admin connection to an own server, as the second person that the organization or its tenant demands.
#[utoipa::path(post, path = "/connections/{id}/approve", tag = "admin", params(("id" = ConnectionId, Path)),
    responses((status = 200, body = Connection)))]
pub(super) async fn approve(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ConnectionId>,
) -> ApiResult<Tagged<Connection>> {
    Ok(Tagged(app.service.approve_admin(&actor, id).await?))
}

/// Accept an offered admin connection, naming the server it is used from.
#[utoipa::path(post, path = "/connections/{id}/accept", tag = "admin", params(("id" = ConnectionId, Path)),
    request_body = AcceptAdmin, responses((status = 200, body = Connection)))]
pub(super) async fn accept(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ConnectionId>,
    Body(body): Body<AcceptAdmin>,
) -> ApiResult<Tagged<Connection>> {
    Ok(Tagged(app.service.accept_admin(&actor, id, body).await?))
}

/// Name oneself as the person behind an account or address of the own side, for a while.
#[utoipa::path(post, path = "/connections/{id}/enter", tag = "admin", params(("id" = ConnectionId, Path)),
    request_body = EnterAdmin, responses((status = 200, body = Connection)))]
pub(super) async fn enter(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ConnectionId>,
    Body(body): Body<EnterAdmin>,
) -> ApiResult<Tagged<Connection>> {
    Ok(Tagged(app.service.enter_admin(&actor, id, body).await?))
}

/// Take the own name from an admin connection.
#[utoipa::path(post, path = "/connections/{id}/leave", tag = "admin", params(("id" = ConnectionId, Path)),
    responses((status = 200, body = Connection)))]
pub(super) async fn leave(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ConnectionId>,
) -> ApiResult<Tagged<Connection>> {
    Ok(Tagged(app.service.leave_admin(&actor, id).await?))
}

/// Decline an offered admin connection.
#[utoipa::path(post, path = "/connections/{id}/decline", tag = "admin", params(("id" = ConnectionId, Path)),
    responses((status = 200, body = Connection)))]
pub(super) async fn decline(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ConnectionId>,
) -> ApiResult<Tagged<Connection>> {
    Ok(Tagged(app.service.decline_admin(&actor, id).await?))
}
