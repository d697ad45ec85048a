//! Agreements.

use axum::{Json, extract::State};
use gateway_proto::{
    api::{Page, platform::Agreement},
    id::AgreementId,
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, At, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::service::{AgreementChange, Paging};

/// Agreements of the own organization.
#[utoipa::path(get, path = "/agreements", tag = "peering", params(Paging),
    responses((status = 200, body = Page<Agreement>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<Agreement>>> {
    Ok(Json(app.service.agreements(&actor, &paging).await?))
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
