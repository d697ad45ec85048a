//! Agreements.

use axum::{Json, extract::State};
use gateway_proto::{
    api::{Page, platform::Agreement},
    id::AgreementId,
    peering::AgreementStatus,
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::service::{AgreementChange, Paging};

/// Which agreements.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AgreementQuery {
    /// Those in one status.
    status: Option<AgreementStatus>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

/// Agreements of the own organization.
#[utoipa::path(get, path = "/agreements", tag = "peering", params(AgreementQuery),
    responses((status = 200, body = Page<Agreement>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<AgreementQuery>,
) -> ApiResult<Json<Page<Agreement>>> {
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    Ok(Json(app.service.agreements(&actor, query.status, &paging).await?))
}

/// One agreement.
#[utoipa::path(get, path = "/agreements/{id}", tag = "peering", params(("id" = AgreementId, Path)),
    responses((status = 200, body = Agreement)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<AgreementId>,
) -> ApiResult<Tagged<Agreement>> {
    Ok(Tagged(app.service.agreement(&actor, id).await?))
}

/// What to do with an agreement.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AgreementVerb {
    Suspend,
    Resume,
    End,
}

/// Suspend, resume or end an agreement.
#[utoipa::path(post, path = "/agreements/{id}/{act}", tag = "peering",
    params(("id" = AgreementId, Path), ("act" = AgreementVerb, Path)),
    responses((status = 200, body = Agreement)))]
pub(super) async fn act(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At((id, verb)): At<(AgreementId, AgreementVerb)>,
) -> ApiResult<Tagged<Agreement>> {
    let change = match verb {
        AgreementVerb::Suspend => AgreementChange::Suspend,
        AgreementVerb::Resume => AgreementChange::Resume,
        AgreementVerb::End => AgreementChange::End,
    };
    Ok(Tagged(app.service.change_agreement(&actor, id, change).await?))
}
