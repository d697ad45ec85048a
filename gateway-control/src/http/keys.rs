//! The keys and tokens of the platform itself, for its operator.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{PlatformToken, PolicyKey, RotatePlatformToken, RotatePolicyKey, RotatedPlatformToken},
    },
    identity::GatewayPublicKey,
    relay::keys::RelayKeys,
};

use super::{
    App,
    extract::{At, Body, Operator, Whole},
    problem::ApiResult,
};
use crate::service::ServiceError;

/// The keys that sign policies, oldest first, on one page.
#[utoipa::path(get, path = "/policy-keys", tag = "platform", responses((status = 200, body = Page<PolicyKey>)),
    security(("operator" = [])))]
pub(super) async fn policy_keys(State(app): State<App>, _: Operator, _: Whole) -> ApiResult<Json<Page<PolicyKey>>> {
    Ok(Json(Page { items: app.service.policy_keys().await?, next: None }))
}

/// Make a new key that signs policies. It is made known first and signs later; at once: it signs now.
#[utoipa::path(post, path = "/policy-keys/rotate", tag = "platform", request_body = RotatePolicyKey,
    responses((status = 200, body = Page<PolicyKey>)), security(("operator" = [])))]
pub(super) async fn rotate_policy_key(
    State(app): State<App>,
    Operator(operator): Operator,
    Body(body): Body<RotatePolicyKey>,
) -> ApiResult<Json<Page<PolicyKey>>> {
    Ok(Json(Page { items: app.service.rotate_policy_key(&operator, body).await?, next: None }))
}

/// The keys that relays believe: a statement signed by the key that signs policies now, and how it follows from those before it.
/// Public.
#[utoipa::path(get, path = "/relay-keys", tag = "platform", responses((status = 200, body = RelayKeys)), security(()))]
pub(super) async fn relay_keys(State(app): State<App>) -> ApiResult<Json<RelayKeys>> {
    Ok(Json(app.service.relay_keys().await?))
}

/// Forget a retired key and those before it: a gateway that knows no newer one has to be enrolled anew.
#[utoipa::path(delete, path = "/policy-keys/{key}", tag = "platform", params(("key" = String, Path)),
    responses((status = 204)), security(("operator" = [])))]
pub(super) async fn forget_policy_key(
    State(app): State<App>,
    Operator(operator): Operator,
    At(key): At<String>,
) -> ApiResult<StatusCode> {
    let key: GatewayPublicKey = key.parse().map_err(|_| ServiceError::NotFound("policy key"))?;
    app.service.forget_policy_key(&operator, key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make a new operator or registration token. Those before it count for a while.
#[utoipa::path(post, path = "/platform-tokens/{kind}/rotate", tag = "platform",
    params(("kind" = PlatformToken, Path)), request_body = RotatePlatformToken,
    responses((status = 200, body = RotatedPlatformToken)), security(("operator" = [])))]
pub(super) async fn rotate_token(
    State(app): State<App>,
    Operator(operator): Operator,
    At(kind): At<PlatformToken>,
    Body(body): Body<RotatePlatformToken>,
) -> ApiResult<Json<RotatedPlatformToken>> {
    Ok(Json(app.service.rotate_platform_token(&operator, kind, body).await?))
}
