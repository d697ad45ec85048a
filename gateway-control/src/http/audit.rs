//! The audit log.

use axum::{Json, extract::State};
use gateway_proto::api::{
    Page,
    platform::{AuditAnchor, AuditEntry, AuditOrder},
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, Operator, SignedIn},
    problem::ApiResult,
};
use crate::{service::Paging, storage::AuditFilter};

/// Which entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Which entries come first; default: the newest.
    #[serde(default)]
    order: AuditOrder,
    /// Those whose act begins with this, for example `grant.`.
    #[serde(default)]
    act: String,
    /// Those about one object, by its id.
    #[serde(default)]
    object: String,
    /// Those of one actor.
    #[serde(default)]
    actor: String,
    /// Those from this Unix second on.
    #[serde(default)]
    since: u64,
    /// Those from before this Unix second.
    until: Option<u64>,
    /// The `next` of the page before, in the same order.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200.
    limit: Option<u32>,
}

impl AuditQuery {
    fn parts(self) -> (AuditFilter, AuditOrder, Paging) {
        let Self { order, act, object, actor, since, until, cursor, limit } = self;
        (AuditFilter { act, object, actor, since, until }, order, Paging { cursor, limit })
    }
}

/// The audit log of the own organization.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditEntry>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<AuditQuery>,
) -> ApiResult<Json<Page<AuditEntry>>> {
    let (filter, order, paging) = query.parts();
    Ok(Json(app.service.audit_log(&actor, &filter, order, &paging).await?))
}

/// The audit log of the platform: what its operator did, and which organizations came and went.
#[utoipa::path(get, path = "/platform/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditEntry>)), security(("operator" = [])))]
pub(super) async fn platform(
    State(app): State<App>,
    _: Operator,
    Ask(query): Ask<AuditQuery>,
) -> ApiResult<Json<Page<AuditEntry>>> {
    let (filter, order, paging) = query.parts();
    Ok(Json(app.service.platform_audit_log(&filter, order, &paging).await?))
}

/// Where the audit log of the platform begins, once its oldest entries were removed.
#[utoipa::path(get, path = "/platform/audit/anchor", tag = "audit", responses((status = 200, body = AuditAnchor)),
    security(("operator" = [])))]
pub(super) async fn platform_anchor(State(app): State<App>, _: Operator) -> ApiResult<Json<AuditAnchor>> {
    Ok(Json(app.service.platform_audit_anchor().await?))
}

/// Where the audit log begins, once its oldest entries were removed.
#[utoipa::path(get, path = "/audit/anchor", tag = "audit", responses((status = 200, body = AuditAnchor)))]
pub(super) async fn anchor(State(app): State<App>, SignedIn(actor, _): SignedIn) -> ApiResult<Json<AuditAnchor>> {
    Ok(Json(app.service.audit_anchor(&actor).await?))
}
