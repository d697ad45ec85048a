//! The audit log.

use axum::{Json, extract::State};
use gateway_proto::api::{
    Page,
    platform::{AuditAnchor, AuditEntry, AuditOrder},
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, SignedIn},
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

/// The audit log of the own organization.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditEntry>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(query): Ask<AuditQuery>,
) -> ApiResult<Json<Page<AuditEntry>>> {
    let AuditQuery { order, act, object, actor: by, since, until, cursor, limit } = query;
    let filter = AuditFilter { act, object, actor: by, since, until };
    Ok(Json(app.service.audit_log(&actor, &filter, order, &Paging { cursor, limit }).await?))
}

/// Where the audit log begins, once its oldest entries were removed.
#[utoipa::path(get, path = "/audit/anchor", tag = "audit", responses((status = 200, body = AuditAnchor)))]
pub(super) async fn anchor(State(app): State<App>, SignedIn(actor, _): SignedIn) -> ApiResult<Json<AuditAnchor>> {
    Ok(Json(app.service.audit_anchor(&actor).await?))
}
