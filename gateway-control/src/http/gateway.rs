//! Enrolment of gateways.

use axum::{Json, extract::State};
use gateway_proto::api::gateway::{EnrollAnswer, EnrollRequest};

use super::{App, extract::Body, problem::ApiResult};
use crate::service::{ServiceError, Stranger};

/// Enrol a gateway with a one-time code. The same key and code get the same answer again.
#[utoipa::path(post, path = "/gateway/enroll", tag = "gateways", request_body = EnrollRequest,
    responses((status = 200, body = EnrollAnswer)), security(()))]
pub(super) async fn enroll(
    State(app): State<App>,
    stranger: Stranger,
    Body(request): Body<EnrollRequest>,
) -> ApiResult<Json<EnrollAnswer>> {
    app.limits.enrollments.check(&stranger.address).map_err(ServiceError::RateLimited)?;
    let answer = app.service.enroll(&stranger, request).await;
    app.metrics.enrollment(answer.is_ok());
    Ok(Json(answer?))
}
