//! The second factor of a user.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::platform::{ConfirmTotp, ConfirmedTotp, DisableTotp, EnrollTotp, TotpEnrollment, TotpStatus},
    id::UserId,
};

use super::{
    App,
    extract::{Address, At, Body, SignedIn},
    problem::ApiResult,
};
use crate::service::ServiceError;

/// The own second factor.
#[utoipa::path(get, path = "/me/totp", tag = "accounts", responses((status = 200, body = TotpStatus)))]
pub(super) async fn status(State(app): State<App>, SignedIn(actor, _): SignedIn) -> ApiResult<Json<TotpStatus>> {
    Ok(Json(app.service.totp_status(&actor).await?))
}

/// Begin with a second factor; what the authenticator needs is shown once.
#[utoipa::path(post, path = "/me/totp", tag = "accounts", request_body = EnrollTotp,
    responses((status = 201, body = TotpEnrollment)))]
pub(super) async fn enroll(
    State(app): State<App>,
    Address(address): Address,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<EnrollTotp>,
) -> ApiResult<(StatusCode, Json<TotpEnrollment>)> {
    app.limits.strangers.check(&address).map_err(ServiceError::RateLimited)?;
    Ok((StatusCode::CREATED, Json(app.service.enroll_totp(&actor, body).await?)))
}

/// Confirm it with a code: from now on it is needed at sign-in. Recovery codes are shown once.
#[utoipa::path(post, path = "/me/totp/confirm", tag = "accounts", request_body = ConfirmTotp,
    responses((status = 200, body = ConfirmedTotp)))]
pub(super) async fn confirm(
    State(app): State<App>,
    SignedIn(actor, token): SignedIn,
    Body(body): Body<ConfirmTotp>,
) -> ApiResult<Json<ConfirmedTotp>> {
    Ok(Json(app.service.confirm_totp(&actor, &token, body).await?))
}

/// Give the own second factor up.
#[utoipa::path(post, path = "/me/totp/disable", tag = "accounts", request_body = DisableTotp,
    responses((status = 204)))]
pub(super) async fn disable(
    State(app): State<App>,
    Address(address): Address,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<DisableTotp>,
) -> ApiResult<StatusCode> {
    app.limits.strangers.check(&address).map_err(ServiceError::RateLimited)?;
    app.service.disable_totp(&actor, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take the second factor of a user off, who lost it; the user's sessions end.
#[utoipa::path(delete, path = "/users/{id}/totp", tag = "accounts", params(("id" = UserId, Path)),
    responses((status = 204)))]
pub(super) async fn reset(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<UserId>,
) -> ApiResult<StatusCode> {
    app.service.reset_totp(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
