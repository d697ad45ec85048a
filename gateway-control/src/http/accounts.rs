//! Organizations, sessions, users, the directory.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use gateway_proto::{
    api::{
        Page,
        platform::{
            CreateOrganization, CreateUser, DirectoryEntry, Login, Me, Organization, Session, SignedOut,
            UpdateOrganization, UpdateUser, User,
        },
    },
    id::{OrganizationId, UserId},
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::service::{Paging, ServiceError, Stranger};

/// Create an organization and its owner, who is signed in at once.
#[utoipa::path(post, path = "/organizations", tag = "accounts", request_body = CreateOrganization,
    responses((status = 201, body = Session)), security(()))]
pub(super) async fn create_organization(
    State(app): State<App>,
    stranger: Stranger,
    Body(body): Body<CreateOrganization>,
) -> ApiResult<(StatusCode, Json<Session>)> {
    app.limits.strangers.check(&stranger.address).map_err(ServiceError::RateLimited)?;
    Ok((StatusCode::CREATED, Json(app.service.create_organization(&stranger, body).await?)))
}

/// Sign in.
#[utoipa::path(post, path = "/sessions", tag = "accounts", request_body = Login,
    responses((status = 201, body = Session)), security(()))]
pub(super) async fn login(
    State(app): State<App>,
    stranger: Stranger,
    Body(body): Body<Login>,
) -> ApiResult<(StatusCode, Json<Session>)> {
    app.limits.strangers.check(&stranger.address).map_err(ServiceError::RateLimited)?;
    let account: String = body.email.trim().to_lowercase().chars().take(254).collect();
    app.limits.logins.check(&(stranger.address, account)).map_err(ServiceError::RateLimited)?;
    Ok((StatusCode::CREATED, Json(app.service.login(&stranger, body).await?)))
}

/// Sign out; of a session that was made through a provider, where the one at the provider ends.
#[utoipa::path(delete, path = "/sessions/current", tag = "accounts",
    responses((status = 200, body = SignedOut), (status = 204)))]
pub(super) async fn logout(State(app): State<App>, SignedIn(actor, token): SignedIn) -> ApiResult<Response> {
    Ok(match app.service.logout(&actor, &token).await? {
        Some(signed_out) => Json(signed_out).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Who asks.
#[utoipa::path(get, path = "/me", tag = "accounts", responses((status = 200, body = Me)))]
pub(super) async fn me(State(app): State<App>, SignedIn(actor, _): SignedIn) -> ApiResult<Json<Me>> {
    Ok(Json(app.service.me(&actor)?))
}

/// The own organization.
#[utoipa::path(get, path = "/organization", tag = "accounts", responses((status = 200, body = Organization)))]
pub(super) async fn organization(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
) -> ApiResult<Tagged<Organization>> {
    Ok(Tagged(app.service.own_organization(&actor)?))
}

/// Change the own organization.
#[utoipa::path(patch, path = "/organization", tag = "accounts", request_body = UpdateOrganization,
    responses((status = 200, body = Organization)))]
pub(super) async fn update_organization(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<UpdateOrganization>,
) -> ApiResult<Tagged<Organization>> {
    Ok(Tagged(app.service.update_organization(&actor, body).await?))
}

/// Users of the own organization.
#[utoipa::path(get, path = "/users", tag = "accounts", params(Paging), responses((status = 200, body = Page<User>)))]
pub(super) async fn users(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<User>>> {
    Ok(Json(app.service.users(&actor, &paging).await?))
}

/// Add a user.
#[utoipa::path(post, path = "/users", tag = "accounts", request_body = CreateUser,
    responses((status = 201, body = User)))]
pub(super) async fn create_user(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateUser>,
) -> ApiResult<(StatusCode, Tagged<User>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_user(&actor, body).await?)))
}

/// One user.
#[utoipa::path(get, path = "/users/{id}", tag = "accounts", params(("id" = UserId, Path)),
    responses((status = 200, body = User)))]
pub(super) async fn user(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<UserId>,
) -> ApiResult<Tagged<User>> {
    Ok(Tagged(app.service.user(&actor, id).await?))
}

/// Give a user another role; what the new role may not keep ends.
#[utoipa::path(patch, path = "/users/{id}", tag = "accounts", params(("id" = UserId, Path)),
    request_body = UpdateUser, responses((status = 200, body = User)))]
pub(super) async fn update_user(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<UserId>,
    Body(body): Body<UpdateUser>,
) -> ApiResult<Tagged<User>> {
    Ok(Tagged(app.service.update_user(&actor, id, body).await?))
}

/// Remove a user; sessions, tokens and unused enrolment codes of the user end.
#[utoipa::path(delete, path = "/users/{id}", tag = "accounts", params(("id" = UserId, Path)),
    responses((status = 204)))]
pub(super) async fn delete_user(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<UserId>,
) -> ApiResult<StatusCode> {
    app.service.delete_user(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What to look for in the directory.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DirectoryQuery {
    /// Part of a name or description, case does not matter. Older clients say `q`.
    #[serde(default, alias = "q")]
    search: String,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// Organizations that chose to be found.
#[utoipa::path(get, path = "/directory", tag = "peering", params(DirectoryQuery),
    responses((status = 200, body = Page<DirectoryEntry>)))]
pub(super) async fn directory(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<DirectoryQuery>,
) -> ApiResult<Json<Page<DirectoryEntry>>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    Ok(Json(app.service.directory(&actor, &query.search, &paging).await?))
}

/// One organization that chose to be found; for any other there is none.
#[utoipa::path(get, path = "/directory/{id}", tag = "peering", params(("id" = OrganizationId, Path)),
    responses((status = 200, body = DirectoryEntry)))]
pub(super) async fn directory_entry(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<OrganizationId>,
) -> ApiResult<Tagged<DirectoryEntry>> {
    Ok(Tagged(app.service.directory_entry(&actor, id).await?))
}
