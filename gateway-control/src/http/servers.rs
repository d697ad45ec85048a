//! Servers and enrolment codes.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{
            AccessEntry, CreateEnrollmentCode, CreateServer, CreatedEnrollmentCode, OpenEnrollmentCode, Server,
        },
    },
    id::{EnrollmentCodeId, ServerId},
};

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged, Whole},
    problem::ApiResult,
};
use crate::service::Paging;

/// Servers of the own organization.
#[utoipa::path(get, path = "/servers", tag = "servers", params(Paging),
    responses((status = 200, body = Page<Server>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<Server>>> {
    Ok(Json(app.service.servers(&actor, &paging).await?))
}

/// One server.
#[utoipa::path(get, path = "/servers/{id}", tag = "servers", params(("id" = ServerId, Path)),
    responses((status = 200, body = Server)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
) -> ApiResult<Tagged<Server>> {
    Ok(Tagged(app.service.server(&actor, id).await?))
}

/// Register a server.
#[utoipa::path(post, path = "/servers", tag = "servers", request_body = CreateServer,
    responses((status = 201, body = Server)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateServer>,
) -> ApiResult<(StatusCode, Tagged<Server>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_server(&actor, body).await?)))
}

/// Remove a server with its channels, grants and connections; its gateway is told to keep nothing open.
#[utoipa::path(delete, path = "/servers/{id}", tag = "servers", params(("id" = ServerId, Path)),
    responses((status = 204)))]
pub(super) async fn delete(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
) -> ApiResult<StatusCode> {
    app.service.delete_server(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make an enrolment code; an unused older one of the server ends.
#[utoipa::path(post, path = "/servers/{id}/enrollment-codes", tag = "servers", params(("id" = ServerId, Path)),
    request_body = CreateEnrollmentCode, responses((status = 201, body = CreatedEnrollmentCode)))]
pub(super) async fn create_enrollment_code(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
    Body(body): Body<CreateEnrollmentCode>,
) -> ApiResult<(StatusCode, Json<CreatedEnrollmentCode>)> {
    Ok((StatusCode::CREATED, Json(app.service.create_enrollment_code(&actor, id, body).await?)))
}

/// The enrolment code of the server that can still be used, on one page; not the code itself.
#[utoipa::path(get, path = "/servers/{id}/enrollment-codes", tag = "servers", params(("id" = ServerId, Path)),
    responses((status = 200, body = Page<OpenEnrollmentCode>)))]
pub(super) async fn enrollment_codes(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
    _: Whole,
) -> ApiResult<Json<Page<OpenEnrollmentCode>>> {
    Ok(Json(Page { items: app.service.enrollment_codes(&actor, id).await?, next: None }))
}

/// Revoke an enrolment code that nobody used.
#[utoipa::path(delete, path = "/servers/{id}/enrollment-codes/{code}", tag = "servers",
    params(("id" = ServerId, Path), ("code" = EnrollmentCodeId, Path)), responses((status = 204)))]
pub(super) async fn delete_enrollment_code(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At((id, code)): At<(ServerId, EnrollmentCodeId)>,
) -> ApiResult<StatusCode> {
    app.service.delete_enrollment_code(&actor, id, code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who has access to it, and who was offered or asked for it.
#[utoipa::path(get, path = "/servers/{id}/access", tag = "servers", params(("id" = ServerId, Path), Paging),
    responses((status = 200, body = Page<AccessEntry>)))]
pub(super) async fn access(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<AccessEntry>>> {
    Ok(Json(app.service.server_access(&actor, id, &paging).await?))
}
