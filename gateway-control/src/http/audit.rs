//! The audit log.

use axum::{Json, extract::State};
use gateway_proto::api::{Page, platform::AuditEntry};

use super::{
    App,
    extract::{Ask, SignedIn},
    problem::ApiResult,
};
use crate::service::Paging;

/// The audit log of the own organization, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(Paging),
    responses((status = 200, body = Page<AuditEntry>)))]
pub(super) async fn list(
    State(app): State<App>,
    SignedIn(actor, _): SignedIn,
    Ask(paging): Ask<Paging>,
) -> ApiResult<Json<Page<AuditEntry>>> {
    Ok(Json(app.service.audit_log(&actor, &paging).await?))
}
