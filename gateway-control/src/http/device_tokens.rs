//! Tokens of devices, and the keys that sign them.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use gateway_proto::{
    api::{
        Page,
        platform::{
            CreateDeviceToken, CreatedDeviceToken, DeviceToken, IntrospectToken, Introspection, RotateTokenKeys,
            TokenKey, TokenTerms,
        },
    },
    id::{DeviceId, DeviceTokenId},
    jws::JwkSet,
};

use super::{
    App,
    extract::{Ask, At, Body, Operator, SignedIn, Somebody, Verifier, Whole},
    problem::ApiResult,
};
use crate::service::Paging;

/// Tokens of a device that have not ended.
#[utoipa::path(get, path = "/devices/{id}/tokens", tag = "devices", params(("id" = DeviceId, Path), Paging),
    responses((status = 200, body = Page<DeviceToken>)))]
pub(super) async fn of_device(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<DeviceId>,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<DeviceToken>>> {
    Ok(Json(app.service.device_tokens(&actor, Some(id), &paging).await?))
}

/// Make a token of a device; it is shown once.
#[utoipa::path(post, path = "/devices/{id}/tokens", tag = "devices", params(("id" = DeviceId, Path)),
    request_body = CreateDeviceToken, responses((status = 201, body = CreatedDeviceToken)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<DeviceId>,
    Body(body): Body<CreateDeviceToken>,
) -> ApiResult<(StatusCode, Json<CreatedDeviceToken>)> {
    Ok((StatusCode::CREATED, Json(app.service.create_device_token(&actor, id, body).await?)))
}

/// Tokens of all own devices that have not ended.
#[utoipa::path(get, path = "/device-tokens", tag = "devices", params(Paging),
    responses((status = 200, body = Page<DeviceToken>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<DeviceToken>>> {
    Ok(Json(app.service.device_tokens(&actor, None, &paging).await?))
}

/// Revoke a token, at once for whoever asks about it.
#[utoipa::path(delete, path = "/device-tokens/{id}", tag = "devices", params(("id" = DeviceTokenId, Path)),
    responses((status = 204)))]
pub(super) async fn revoke(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<DeviceTokenId>,
) -> ApiResult<StatusCode> {
    app.service.revoke_device_token(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a token counts now. Asked by a user, or by a gateway with an assertion for this request.
#[utoipa::path(post, path = "/device-tokens/introspect", tag = "devices", request_body = IntrospectToken,
    responses((status = 200, body = Introspection)), security(("session" = []), ("gateway" = [])))]
pub(super) async fn introspect(
    State(app): State<App>,
    Verifier(verifier): Verifier,
    Body(body): Body<IntrospectToken>,
) -> ApiResult<Json<Introspection>> {
    Ok(Json(app.service.introspect(&verifier, body).await?))
}

/// The keys that sign tokens, on one page.
#[utoipa::path(get, path = "/token-keys", tag = "devices", responses((status = 200, body = Page<TokenKey>)),
    security(("operator" = [])))]
pub(super) async fn keys(State(app): State<App>, _: Operator, _: Whole) -> ApiResult<Json<Page<TokenKey>>> {
    Ok(Json(Page { items: app.service.token_keys().await?, next: None }))
}

/// Make a new key: it is published now, and signs in ten minutes. At once: every token there is ends.
#[utoipa::path(post, path = "/token-keys/rotate", tag = "devices", request_body = RotateTokenKeys,
    responses((status = 200, body = Page<TokenKey>)), security(("operator" = [])))]
pub(super) async fn rotate(
    State(app): State<App>,
    Operator(operator): Operator,
    Body(body): Body<RotateTokenKeys>,
) -> ApiResult<Json<Page<TokenKey>>> {
    Ok(Json(Page { items: app.service.rotate_token_keys(&operator, body).await?, next: None }))
}

/// How long tokens live.
#[utoipa::path(get, path = "/token-terms", tag = "devices", responses((status = 200, body = TokenTerms)))]
pub(super) async fn terms(State(app): State<App>, _: Somebody) -> ApiResult<Json<TokenTerms>> {
    Ok(Json(app.service.token_terms().await?))
}

/// Change how long new tokens live.
#[utoipa::path(put, path = "/token-terms", tag = "devices", request_body = TokenTerms,
    responses((status = 200, body = TokenTerms)), security(("operator" = [])))]
pub(super) async fn put_terms(
    State(app): State<App>,
    Operator(operator): Operator,
    Body(body): Body<TokenTerms>,
) -> ApiResult<Json<TokenTerms>> {
    Ok(Json(app.service.put_token_terms(&operator, body).await?))
}

/// The public keys with which device tokens are verified (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "devices", security(()),
    responses((status = 200, body = JwkSet, content_type = "application/jwk-set+json")))]
pub(super) async fn jwks(State(app): State<App>) -> ApiResult<impl IntoResponse> {
    // Half the time that a new key is published before it signs.
    let headers = [(header::CACHE_CONTROL, "public, max-age=300"), (header::CONTENT_TYPE, "application/jwk-set+json")];
    Ok((headers, Json(app.service.jwks().await?)))
}
