//! The audit logs of gateways, as far as their heads were reported.

use axum::{Json, extract::State};
use gateway_proto::{
    api::{
        Page,
        platform::{AcknowledgeAudit, GatewayAudit, KeptHead},
    },
    id::ServerId,
};

use super::{
    App,
    extract::{Ask, At, Body, SignedIn, Tagged},
    problem::ApiResult,
};
use crate::service::Paging;

/// What is known of the audit log of a server's gateway, and whether it is still the one that was reported.
#[utoipa::path(get, path = "/servers/{id}/gateway-audit", tag = "audit", params(("id" = ServerId, Path)),
    responses((status = 200, body = GatewayAudit)))]
pub(super) async fn show(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
) -> ApiResult<Tagged<GatewayAudit>> {
    Ok(Tagged(app.service.server_audit(&actor, id).await?))
}

/// Heads that the gateway of a server reported, newest first: one an hour.
#[utoipa::path(get, path = "/servers/{id}/gateway-audit/heads", tag = "audit", params(("id" = ServerId, Path), Paging),
    responses((status = 200, body = Page<KeptHead>)))]
pub(super) async fn heads(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<KeptHead>>> {
    Ok(Json(app.service.server_audit_heads(&actor, id, &paging).await?))
}

/// Acknowledge that the log is not the one that was reported.
#[utoipa::path(post, path = "/servers/{id}/gateway-audit/acknowledge", tag = "audit", params(("id" = ServerId, Path)),
    request_body = AcknowledgeAudit, responses((status = 200, body = GatewayAudit)))]
pub(super) async fn acknowledge(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    At(id): At<ServerId>,
    Body(body): Body<AcknowledgeAudit>,
) -> ApiResult<Tagged<GatewayAudit>> {
    Ok(Tagged(app.service.acknowledge_audit(&actor, id, body).await?))
}
