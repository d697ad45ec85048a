//! Grants.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{ApproveGrant, CreateGrant, Grant},
    },
    id::{AgreementId, ChannelId, GrantId},
    peering::{GrantAct, GrantStatus},
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::{service::Paging, storage::GrantFilter};

/// Which grants.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GrantQuery {
    /// Those in one status.
    status: Option<GrantStatus>,
    /// Those of one agreement.
    agreement: Option<AgreementId>,
    /// Those of one channel.
    channel: Option<ChannelId>,
    /// `given` or `received` ones only; inside a self-agreement a grant is both.
    direction: Option<GrantDirection>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// Whose channel a grant is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GrantDirection {
    /// The own organization's.
    Given,
    /// The peer's.
    Received,
}

/// Grants given and received by the own organization.
#[utoipa::path(get, path = "/grants", tag = "grants", params(GrantQuery),
    responses((status = 200, body = Page<Grant>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<GrantQuery>,
) -> ApiResult<Json<Page<Grant>>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    let filter = GrantFilter {
        status: query.status,
        agreement: query.agreement,
        channel: query.channel,
        given: query.direction.map(|direction| direction == GrantDirection::Given),
    };
    Ok(Json(app.service.grants(&actor, &filter, &paging).await?))
}

/// One grant.
#[utoipa::path(get, path = "/grants/{id}", tag = "grants", params(("id" = GrantId, Path)),
    responses((status = 200, body = Grant)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<GrantId>,
) -> ApiResult<Tagged<Grant>> {
    Ok(Tagged(app.service.grant(&actor, id).await?))
}

/// Offer an own channel, or ask for one of the peer's.
#[utoipa::path(post, path = "/grants", tag = "grants", request_body = CreateGrant,
    responses((status = 201, body = Grant)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreateGrant>,
) -> ApiResult<(StatusCode, Tagged<Grant>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_grant(&actor, body).await?)))
}

/// Approve a grant; its connection is made with it.
#[utoipa::path(post, path = "/grants/{id}/approve", tag = "grants", params(("id" = GrantId, Path)),
    request_body = ApproveGrant, responses((status = 200, body = Grant)))]
pub(super) async fn approve(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<GrantId>,
    Body(body): Body<ApproveGrant>,
) -> ApiResult<Tagged<Grant>> {
    Ok(Tagged(app.service.approve_grant(&actor, id, body).await?))
}

/// How a grant ends.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GrantVerb {
    Deny,
    Withdraw,
    Revoke,
    Surrender,
}

/// Deny, withdraw, revoke or surrender a grant.
#[utoipa::path(post, path = "/grants/{id}/{act}", tag = "grants",
    params(("id" = GrantId, Path), ("act" = GrantVerb, Path)), responses((status = 200, body = Grant)))]
pub(super) async fn act(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At((id, verb)): At<(GrantId, GrantVerb)>,
) -> ApiResult<Tagged<Grant>> {
    let act = match verb {
        GrantVerb::Deny => GrantAct::Deny,
        GrantVerb::Withdraw => GrantAct::Withdraw,
        GrantVerb::Revoke => GrantAct::Revoke,
        GrantVerb::Surrender => GrantAct::Surrender,
    };
    Ok(Tagged(app.service.end_grant(&actor, id, act).await?))
}
