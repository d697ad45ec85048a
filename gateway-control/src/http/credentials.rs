//! Tokens of automation, invitations, passwords.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{
            AcceptInvitation, ApiToken, ChangePassword, CreateApiToken, CreateInvitation, CreatedApiToken,
            CreatedInvitation, Invitation, Session,
        },
    },
    id::{ApiTokenId, InvitationId},
};

use super::{
    App,
    extract::{Address, Ask, At, Body, SignedIn},
    problem::ApiResult,
};
use crate::service::{Paging, ServiceError, Stranger};

/// For whoever opens the link of an invitation in a browser, which keeps the part with the code to itself.
const ABOUT_INVITATION: &str = "\
You are invited to an organization on this platform.

Copy the whole link, with what stands behind the '#'. Write the password that you choose (12 characters or more) into a file that only
you can read, run

    gateway-ctl user accept - --password-file FILE

and paste the link, followed by Enter and Ctrl-D: so no other user of the machine sees it, and no history of commands keeps it.

Then you are a user, and signed in. Does your organization sign in through a provider? Then the invitation is accepted by the first
`gateway-ctl login --oidc` with the address that was invited; no password is needed.

The link is good once, and for the time that whoever invited you chose. Give it to nobody: who uses it first becomes the user. If it is
refused and you did not use it, tell whoever invited you.
";

/// Says what to do with a link.
pub(super) async fn about_invitation() -> &'static str {
    ABOUT_INVITATION
}

/// Tokens of the own organization; without the role that manages users, the own ones.
#[utoipa::path(get, path = "/api-tokens", tag = "accounts", params(Paging),
    responses((status = 200, body = Page<ApiToken>)))]
pub(super) async fn tokens(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<ApiToken>>> {
    Ok(Json(app.service.api_tokens(&actor, &paging).await?))
}

/// Make a token for automation; it is shown once.
#[utoipa::path(post, path = "/api-tokens", tag = "accounts", request_body = CreateApiToken,
    responses((status = 201, body = CreatedApiToken)))]
pub(super) async fn create_token(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateApiToken>,
) -> ApiResult<(StatusCode, Json<CreatedApiToken>)> {
    Ok((StatusCode::CREATED, Json(app.service.create_api_token(&actor, body).await?)))
}

/// Revoke a token, at once.
#[utoipa::path(delete, path = "/api-tokens/{id}", tag = "accounts", params(("id" = ApiTokenId, Path)),
    responses((status = 204)))]
pub(super) async fn delete_token(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ApiTokenId>,
) -> ApiResult<StatusCode> {
    app.service.delete_api_token(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Invitations of the own organization that wait.
#[utoipa::path(get, path = "/invitations", tag = "accounts", params(Paging),
    responses((status = 200, body = Page<Invitation>)))]
pub(super) async fn invitations(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<Invitation>>> {
    Ok(Json(app.service.invitations(&actor, &paging).await?))
}

/// Invite a person; the link and its code are shown once.
#[utoipa::path(post, path = "/invitations", tag = "accounts", request_body = CreateInvitation,
    responses((status = 201, body = CreatedInvitation)))]
pub(super) async fn invite(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateInvitation>,
) -> ApiResult<(StatusCode, Json<CreatedInvitation>)> {
    Ok((StatusCode::CREATED, Json(app.service.create_invitation(&actor, body).await?)))
}

/// Take an invitation back.
#[utoipa::path(delete, path = "/invitations/{id}", tag = "accounts", params(("id" = InvitationId, Path)),
    responses((status = 204)))]
pub(super) async fn delete_invitation(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<InvitationId>,
) -> ApiResult<StatusCode> {
    app.service.delete_invitation(&actor, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Accept an invitation: the user is made, and signed in.
#[utoipa::path(post, path = "/invitations/accept", tag = "accounts", request_body = AcceptInvitation,
    responses((status = 201, body = Session)), security(()))]
pub(super) async fn accept_invitation(
    State(app): State<App>,
    stranger: Stranger,
    Body(body): Body<AcceptInvitation>,
) -> ApiResult<(StatusCode, Json<Session>)> {
    app.limits.strangers.check(&stranger.address).map_err(ServiceError::RateLimited)?;
    Ok((StatusCode::CREATED, Json(app.service.accept_invitation(&stranger, body).await?)))
}

/// Change the own password; every other session and every token of the user ends.
#[utoipa::path(post, path = "/me/password", tag = "accounts", request_body = ChangePassword,
    responses((status = 204)))]
pub(super) async fn change_password(
    State(app): State<App>,
    Address(address): Address,
    SignedIn(actor, token): SignedIn,
    Body(body): Body<ChangePassword>,
) -> ApiResult<StatusCode> {
    app.limits.strangers.check(&address).map_err(ServiceError::RateLimited)?;
    app.service.change_password(&actor, &token, body).await?;
    Ok(StatusCode::NO_CONTENT)
}
