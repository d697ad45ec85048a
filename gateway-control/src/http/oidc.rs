//! Signing in through a provider of OpenID Connect, and the accounts there that users are linked to.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use gateway_proto::{
    api::platform::{FinishOidc, Hidden, Identity, OidcProvider, Session, SignInWays, StartOidc, StartedOidc},
    id::{IdentityId, UserId},
};
use serde::Deserialize;
use url::Url;

use super::{
    App,
    extract::{Address, Ask, At, Body, SignedIn},
    problem::{ApiError, ApiResult},
};
use crate::service::{OidcReturn, ServiceError, Stranger};

/// The providers through which people may sign in.
#[utoipa::path(get, path = "/oidc/providers", tag = "accounts", responses((status = 200, body = Vec<OidcProvider>)),
    security(()))]
pub(super) async fn providers(State(app): State<App>) -> Json<Vec<OidcProvider>> {
    Json(app.service.oidc_providers())
}

/// Begin to sign in through a provider: the address to open in a browser. Ten minutes, once.
#[utoipa::path(post, path = "/oidc/start", tag = "accounts", request_body = StartOidc,
    responses((status = 201, body = StartedOidc)), security(()))]
pub(super) async fn start(
    State(app): State<App>,
    stranger: Stranger,
    Body(body): Body<StartOidc>,
) -> ApiResult<(StatusCode, Json<StartedOidc>)> {
    app.limits.strangers.check(&stranger.address).map_err(ServiceError::RateLimited)?;
    Ok((StatusCode::CREATED, Json(app.service.start_oidc(body).await?)))
}

/// What a provider sends back with the browser. Parameters it adds are none of ours.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Callback {
    /// What it was given.
    state: Hidden,
    /// The code.
    code: Option<Hidden>,
    /// Why there is none.
    error: Option<String>,
    /// Who answers.
    iss: Option<String>,
}

/// Where the provider sends the browser: to the client that waits on this machine, or a page with the code for it.
#[utoipa::path(get, path = "/oidc/callback/{provider}", tag = "accounts",
    params(("provider" = String, Path, description = "Its name"), Callback), responses(
    (status = 200, content_type = "text/html", body = String), (status = 303)), security(()))]
pub(super) async fn callback(
    State(app): State<App>,
    Address(address): Address,
    At(provider): At<String>,
    Ask(query): Ask<Callback>,
) -> ApiResult<Response> {
    app.limits.strangers.check(&address).map_err(ServiceError::RateLimited)?;
    let attempt = app.service.oidc_attempt(&provider, &query.state.0).await?;
    let back = OidcReturn { code: query.code, error: query.error, issuer: query.iss };
    let code = app.service.return_oidc(&attempt, back).await;
    match (attempt.loopback(), code) {
        (Some(place), code) => Ok(to_client(&place, code.map_err(ApiError::from))),
        (None, code) => Ok(Html(page(&code?)).into_response()),
    }
}

/// Finish: code and verifier are a session, for whoever started.
#[utoipa::path(post, path = "/oidc/sessions", tag = "accounts", request_body = FinishOidc,
    responses((status = 201, body = Session)), security(()))]
pub(super) async fn finish(
    State(app): State<App>,
    stranger: Stranger,
    Body(body): Body<FinishOidc>,
) -> ApiResult<(StatusCode, Json<Session>)> {
    app.limits.strangers.check(&stranger.address).map_err(ServiceError::RateLimited)?;
    Ok((StatusCode::CREATED, Json(app.service.finish_oidc(&stranger, body).await?)))
}

/// What the own user signs in with.
#[utoipa::path(get, path = "/me/sign-in", tag = "accounts", responses((status = 200, body = SignInWays)))]
pub(super) async fn ways(State(app): State<App>, SignedIn(actor, _): SignedIn) -> ApiResult<Json<SignInWays>> {
    Ok(Json(app.service.sign_in_ways(&actor).await?))
}

/// The accounts at providers that a user is linked to.
#[utoipa::path(get, path = "/users/{id}/identities", tag = "accounts", params(("id" = UserId, Path)),
    responses((status = 200, body = Vec<Identity>)))]
pub(super) async fn identities(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<UserId>,
) -> ApiResult<Json<Vec<Identity>>> {
    Ok(Json(app.service.identities(&actor, id).await?))
}

/// Take an account at a provider off a user, whose sessions and tokens end.
#[utoipa::path(delete, path = "/users/{id}/identities/{identity}", tag = "accounts",
    params(("id" = UserId, Path), ("identity" = IdentityId, Path)), responses((status = 204)))]
pub(super) async fn unlink(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At((id, identity)): At<(UserId, IdentityId)>,
) -> ApiResult<StatusCode> {
    app.service.unlink(&actor, id, identity).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends the browser to the client on its own machine.
fn to_client(place: &str, code: Result<Hidden, ApiError>) -> Response {
    let outcome = match &code {
        Ok(code) => Url::parse_with_params(place, [("code", code.0.as_str())]),
        Err(error) => Url::parse_with_params(place, [("error", error.code()), ("detail", &error.told())]),
    };
    match outcome {
        Ok(url) => (StatusCode::SEE_OTHER, [(header::LOCATION, String::from(url))]).into_response(),
        Err(_) => ApiError::from(ServiceError::Internal("a loopback address is no URL")).into_response(),
    }
}

/// The code is letters, digits, `-` and `_`: nothing that means something in HTML.
fn page(code: &Hidden) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Signed in</title></head><body>\
         <h1>Signed in</h1><p>Paste this code where you started to sign in. If that was not you, or somebody else asked you \
         for it: close this page.</p><p><code>{}</code></p></body></html>\n",
        code.0
    )
}
