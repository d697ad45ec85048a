//! Peering requests.

use axum::{Json, extract::State, http::StatusCode};
use gateway_proto::{
    api::{
        Page,
        platform::{CreatePeeringRequest, PeeringRequest},
    },
    id::PeeringRequestId,
    peering::{PeeringAct, PeeringStatus},
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::{service::Paging, storage::PeeringFilter};

/// Which peering requests.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PeeringQuery {
    /// Those in one status.
    status: Option<PeeringStatus>,
    /// `incoming` or `outgoing` ones only.
    direction: Option<PeeringDirection>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PeeringDirection {
    /// Somebody else.
    Incoming,
    /// The own organization.
    Outgoing,
}

/// Peering requests from and to the own organization.
#[utoipa::path(get, path = "/peering-requests", tag = "peering", params(PeeringQuery),
    responses((status = 200, body = Page<PeeringRequest>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<PeeringQuery>,
) -> ApiResult<Json<Page<PeeringRequest>>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    let outgoing = query.direction.map(|direction| direction == PeeringDirection::Outgoing);
    let filter = PeeringFilter { status: query.status, outgoing };
    Ok(Json(app.service.peering_requests(&actor, &filter, &paging).await?))
}

/// Ask an organization for an agreement.
#[utoipa::path(post, path = "/peering-requests", tag = "peering", request_body = CreatePeeringRequest,
    responses((status = 201, body = PeeringRequest)))]
pub(super) async fn create(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Body(body): Body<CreatePeeringRequest>,
) -> ApiResult<(StatusCode, Tagged<PeeringRequest>)> {
    Ok((StatusCode::CREATED, Tagged(app.service.create_peering_request(&actor, body).await?)))
}

/// What to do with a peering request.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PeeringVerb {
    Accept,
    Decline,
    Withdraw,
}

/// Accept, decline or withdraw a peering request.
#[utoipa::path(post, path = "/peering-requests/{id}/{act}", tag = "peering",
    params(("id" = PeeringRequestId, Path), ("act" = PeeringVerb, Path)),
    responses((status = 200, body = PeeringRequest)))]
pub(super) async fn act(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At((id, verb)): At<(PeeringRequestId, PeeringVerb)>,
) -> ApiResult<Tagged<PeeringRequest>> {
    let act = match verb {
        PeeringVerb::Accept => PeeringAct::Accept,
        PeeringVerb::Decline => PeeringAct::Decline,
        PeeringVerb::Withdraw => PeeringAct::Withdraw,
    };
    Ok(Tagged(app.service.act_on_request(&actor, id, act).await?))
}
