//! Subscription tiers: read by everybody who is signed in, changed by the platform's operator.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{AssignTier, PlatformOrganization, PutTier, Tier, Usage},
    },
    id::OrganizationId,
};

use super::{
    App,
    extract::{Ask, At, Body, Operator, SignedIn, Somebody, Whole},
    problem::ApiResult,
};
use crate::service::Paging;

/// What the own organization uses of its tier; what is above a limit is shown as surplus.
#[utoipa::path(get, path = "/organization/usage", tag = "tiers", responses((status = 200, body = Usage)))]
pub(super) async fn usage(State(app): State<App>, SignedIn(actor, _): SignedIn) -> ApiResult<Json<Usage>> {
    Ok(Json(app.service.usage(&actor).await?))
}

/// All tiers, on one page.
#[utoipa::path(get, path = "/tiers", tag = "tiers", responses((status = 200, body = Page<Tier>)))]
pub(super) async fn list(State(app): State<App>, _: Somebody, _: Whole) -> ApiResult<Json<Page<Tier>>> {
    Ok(Json(Page { items: app.service.tiers().await?, next: None }))
}

/// Add a tier, or replace the limits of one.
#[utoipa::path(put, path = "/tiers/{name}", tag = "tiers", params(("name" = String, Path)), request_body = PutTier,
    responses((status = 200, body = Tier)), security(("operator" = [])))]
pub(super) async fn put(
    State(app): State<App>,
    Operator(operator): Operator,
    At(name): At<String>,
    Body(body): Body<PutTier>,
) -> ApiResult<Json<Tier>> {
    Ok(Json(app.service.put_tier(&operator, &name, body).await?))
}

/// All organizations of the platform with their tiers.
#[utoipa::path(get, path = "/organizations", tag = "tiers", params(Paging),
    responses((status = 200, body = Page<PlatformOrganization>)), security(("operator" = [])))]
pub(super) async fn organizations(
    State(app): State<App>,
    _: Operator,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<PlatformOrganization>>> {
    Ok(Json(app.service.platform_organizations(&paging).await?))
}

/// Put an organization into a tier. Nothing is deleted; nothing new comes above a limit.
#[utoipa::path(put, path = "/organizations/{id}/tier", tag = "tiers", params(("id" = OrganizationId, Path)),
    request_body = AssignTier, responses((status = 204)), security(("operator" = [])))]
pub(super) async fn assign(
    State(app): State<App>,
    Operator(operator): Operator,
    At(id): At<OrganizationId>,
    Body(body): Body<AssignTier>,
) -> ApiResult<StatusCode> {
    app.service.assign_tier(&operator, id, body).await?;
    Ok(StatusCode::NO_CONTENT)
}
