//! The audit log.

use axum::{Json, extract::State};
use gateway_proto::api::{
    Page,
    platform::{AuditEntry, AuditOrder},
};
use serde::Deserialize;

use super::{
    App,
    extract::{Ask, SignedIn},
    problem::ApiResult,
};
use crate::service::Paging;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Which entries come first; default: the newest.
    #[serde(default)]
    order: AuditOrder,
    /// The `next` of the page before, in the same order.
    cursor: Option<String>,
    /// Entries of a page at most, 1–200; default 100.
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
    let paging = Paging { cursor: query.cursor, limit: query.limit };
    Ok(Json(app.service.audit_log(&actor, &paging, query.order).await?))
}
