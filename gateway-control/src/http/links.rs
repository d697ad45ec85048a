//! Links between devices, and the metering of what devices do.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{CreateLink, Executions, Link, LinkableDevice},
    },
    id::{LinkId, OrganizationId},
};

use super::{
    App,
    extract::{Ask, At, Body, Operator, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::service::{ExecutionsQuery, Paging};

/// Links from and to devices of the own organization.
#[utoipa::path(get, path = "/links", tag = "devices", params(Paging), responses((status = 200, body = Page<Link>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<Link>>> {
    Ok(Json(app.service.links(&actor, &paging).await?))
}

/// One link.
#[utoipa::path(get, path = "/links/{id}", tag = "devices", params(("id" = LinkId, Path)),
    responses((status = 200, body = Link)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<LinkId>,
) -> ApiResult<Tagged<Link>> {
    Ok(Tagged(app.service.link(&actor, id).await?))
}

/// Link an own device to another one.
#[utoipa::path(post, path = "/links", tag = "devices", request_body = CreateLink,
    responses((status = 201, body = Link)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateLink>,
) -> ApiResult<(StatusCode, Tagged<Link>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_link(&actor, body).await?)))
}

/// Remove a link, from either side.
#[utoipa::path(delete, path = "/links/{id}", tag = "devices", params(("id" = LinkId, Path)),
    responses((status = 204)))]
pub(super) async fn delete(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<LinkId>,
) -> ApiResult<StatusCode> {
    app.service.delete_link(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Devices of others that the own ones may be linked to: of the tenant, of partners, of the platform.
#[utoipa::path(get, path = "/linkable-devices", tag = "devices", params(Paging),
    responses((status = 200, body = Page<LinkableDevice>)))]
pub(super) async fn linkable(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<LinkableDevice>>> {
    Ok(Json(app.service.linkable_devices(&actor, &paging).await?))
}

/// How often the own devices took part in which behavior, by day.
#[utoipa::path(get, path = "/executions", tag = "devices", params(ExecutionsQuery),
    responses((status = 200, body = Page<Executions>)))]
pub(super) async fn executions(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<ExecutionsQuery>,
) -> ApiResult<Json<Page<Executions>>> {
    Ok(Json(app.service.executions(&actor, query).await?))
}

/// The same of any organization.
#[utoipa::path(get, path = "/organizations/{id}/executions", tag = "tiers",
    params(("id" = OrganizationId, Path), ExecutionsQuery), responses((status = 200, body = Page<Executions>)),
    security(("operator" = [])))]
pub(super) async fn executions_of(
    State(app): State<App>,
    _: Operator,
    At(id): At<OrganizationId>,
    Ask(query): Ask<ExecutionsQuery>,
) -> ApiResult<Json<Page<Executions>>> {
    Ok(Json(app.service.executions_of(id, query).await?))
}
