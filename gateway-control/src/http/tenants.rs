//! The organizations of a tenant, and the end of an organization.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{CreateInvitation, CreateSubOrganization, CreatedInvitation, CreatedSubOrganization, Organization},
    },
    id::OrganizationId,
};

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::service::Paging;

/// Organizations of the own tenant; for the one that is the tenant itself.
#[utoipa::path(get, path = "/tenant/organizations", tag = "tenant", params(Paging),
    responses((status = 200, body = Page<Organization>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<Organization>>> {
    Ok(Json(app.service.tenant_organizations(&actor, &paging).await?))
}

/// One of them.
#[utoipa::path(get, path = "/tenant/organizations/{id}", tag = "tenant", params(("id" = OrganizationId, Path)),
    responses((status = 200, body = Organization)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<OrganizationId>,
) -> ApiResult<Tagged<Organization>> {
    Ok(Tagged(app.service.tenant_organization(&actor, id).await?))
}

/// Make an organization of the own tenant; the invitation of its owner is shown once.
#[utoipa::path(post, path = "/tenant/organizations", tag = "tenant", request_body = CreateSubOrganization,
    responses((status = 201, body = CreatedSubOrganization)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateSubOrganization>,
) -> ApiResult<(StatusCode, Json<CreatedSubOrganization>)> {
    Ok((StatusCode::CREATED, Json(app.service.create_sub_organization(&actor, body).await?)))
}

/// Invite a person into one of them; the link and its code are shown once.
#[utoipa::path(post, path = "/tenant/organizations/{id}/invitations", tag = "tenant",
    params(("id" = OrganizationId, Path)), request_body = CreateInvitation,
    responses((status = 201, body = CreatedInvitation)))]
pub(super) async fn invite(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<OrganizationId>,
    Body(body): Body<CreateInvitation>,
) -> ApiResult<(StatusCode, Json<CreatedInvitation>)> {
    Ok((StatusCode::CREATED, Json(app.service.invite_into(&actor, id, body).await?)))
}

/// Remove one of them with everything in it, for good.
#[utoipa::path(delete, path = "/tenant/organizations/{id}", tag = "tenant", params(("id" = OrganizationId, Path)),
    responses((status = 204)))]
pub(super) async fn delete(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<OrganizationId>,
) -> ApiResult<StatusCode> {
    app.service.delete_sub_organization(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove the own organization with everything in it, for good.
#[utoipa::path(delete, path = "/organization", tag = "accounts", responses((status = 204)))]
pub(super) async fn delete_own(State(app): State<App>, SignedIn(actor, _): SignedIn) -> ApiResult<StatusCode> {
    app.service.delete_organization(&actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
