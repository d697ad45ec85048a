//! Errors as `application/problem+json` with stable codes, for whatever went wrong: a rule of the service, an unknown
//! path, a malformed body, a time limit, a panic. The client gets a code and a safe text, the log gets the cause.

mod codes;

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use gateway_proto::api::Problem;

pub use self::codes::{CODES, Code, errors_document};
use super::{App, ClientAddress};
use crate::{oidc::ProviderError, seldom::Seldom, service::ServiceError};

static NO_DATABASE: Seldom = Seldom::new();

/// An error of the service on its way to the client.
#[derive(Debug)]
pub struct ApiError(ServiceError);

/// Result of a handler.
pub(super) type ApiResult<T> = Result<T, ApiError>;

impl<E: Into<ServiceError>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl ApiError {
    /// The code of its answer.
    pub(super) fn code(&self) -> &'static str {
        class(&self.0).1
    }

    /// What people are told; the log gets the cause.
    pub(super) fn told(&self) -> String {
        if class(&self.0).0 == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = &self.0 as &dyn std::error::Error, "a request failed");
            return internal();
        }
        if let ServiceError::Unavailable(cause) = &self.0
            && let Some(left_out) = NO_DATABASE.turn(Instant::now())
        {
            tracing::warn!(error = cause as &dyn std::error::Error, left_out, "a request found no database");
        }
        if let ServiceError::Provider(cause) = &self.0 {
            tracing::warn!(error = cause as &dyn std::error::Error, "a sign-in provider signs nobody in");
        }
        self.0.to_string()
    }
}

/// The id of a request, for log and audit.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// What [`finish`] turns into the body.
#[derive(Debug, Clone)]
struct Draft {
    code: &'static str,
    detail: String,
    retry_after: Option<Duration>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = class(&self.0);
        let retry_after = match &self.0 {
            ServiceError::RateLimited(wait) => Some(*wait),
            ServiceError::Busy | ServiceError::Crowded | ServiceError::Unavailable(_) => Some(Duration::from_secs(1)),
            ServiceError::NotFound(_)
            | ServiceError::Forbidden(_)
            | ServiceError::Invalid(_)
            | ServiceError::Conflict(_)
            | ServiceError::Limit(_)
            | ServiceError::IdempotencyKey(_)
            | ServiceError::KeyNotKept
            | ServiceError::Changed
            | ServiceError::Unconditional
            | ServiceError::WrongState(_)
            | ServiceError::Blocked(_)
            | ServiceError::Unauthenticated(_)
            | ServiceError::Refused(_)
            | ServiceError::TotpRequired
            | ServiceError::Provider(_)
            | ServiceError::OidcAttempt(_)
            | ServiceError::OidcUnknown(_)
            | ServiceError::OidcOrganization
            | ServiceError::OidcRequired(_)
            | ServiceError::EnrollmentCode(_)
            | ServiceError::Replay(_)
            | ServiceError::RunsTwice(_)
            | ServiceError::OtherKey(_)
            | ServiceError::OtherStorageKey
            | ServiceError::Storage(_)
            | ServiceError::Internal(_) => None,
        };
        let detail = self.told();
        let mut response = status.into_response();
        if let ServiceError::Refused(refusal) = &self.0
            && let Ok(challenge) = HeaderValue::from_str(&refusal.to_string())
        {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(Draft { code, detail, retry_after });
        response
    }
}

/// Status and code of each kind of error.
fn class(error: &ServiceError) -> (StatusCode, &'static str) {
    match error {
        ServiceError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
        ServiceError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
        ServiceError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        ServiceError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
        ServiceError::Limit(_) => (StatusCode::CONFLICT, "tier_limit"),
        ServiceError::IdempotencyKey(_) => (StatusCode::CONFLICT, "idempotency_key"),
        ServiceError::KeyNotKept => (StatusCode::UNPROCESSABLE_ENTITY, "key_not_kept"),
        ServiceError::Changed => (StatusCode::PRECONDITION_FAILED, "changed"),
        ServiceError::Unconditional => (StatusCode::UNPROCESSABLE_ENTITY, "unconditional"),
        ServiceError::WrongState(_) | ServiceError::Blocked(_) | ServiceError::RunsTwice(_) => {
            (StatusCode::CONFLICT, "wrong_state")
        }
        ServiceError::Unauthenticated(_) | ServiceError::Refused(_) => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        ServiceError::TotpRequired => (StatusCode::UNAUTHORIZED, "totp_required"),
        ServiceError::Provider(ProviderError::Unreachable(_) | ProviderError::Answer(_)) => {
            (StatusCode::BAD_GATEWAY, "oidc_provider")
        }
        ServiceError::Provider(ProviderError::Code(_)) => (StatusCode::UNAUTHORIZED, "oidc_attempt"),
        ServiceError::OidcAttempt(_) => (StatusCode::UNAUTHORIZED, "oidc_attempt"),
        ServiceError::Provider(ProviderError::Token(_)) => (StatusCode::FORBIDDEN, "oidc_token"),
        ServiceError::Provider(ProviderError::Refused(_)) => (StatusCode::FORBIDDEN, "oidc_refused"),
        ServiceError::OidcUnknown(_) => (StatusCode::FORBIDDEN, "oidc_unknown"),
        ServiceError::OidcOrganization => (StatusCode::CONFLICT, "oidc_organization"),
        ServiceError::OidcRequired(_) => (StatusCode::FORBIDDEN, "oidc_required"),
        ServiceError::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        ServiceError::Crowded => (StatusCode::TOO_MANY_REQUESTS, "busy"),
        ServiceError::EnrollmentCode(_) => (StatusCode::FORBIDDEN, "enrollment_code"),
        ServiceError::Replay(_) => (StatusCode::UNAUTHORIZED, "replay"),
        ServiceError::Busy | ServiceError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        ServiceError::OtherKey(_)
        | ServiceError::OtherStorageKey
        | ServiceError::Storage(_)
        | ServiceError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

/// Words for errors that no handler made.
fn by_status(status: StatusCode) -> Draft {
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this path; the API is below /api/v1".to_owned()),
        StatusCode::METHOD_NOT_ALLOWED => ("invalid", "this path does not take this method".to_owned()),
        StatusCode::PAYLOAD_TOO_LARGE => ("invalid", "the body is larger than 1 MiB".to_owned()),
        StatusCode::REQUEST_TIMEOUT => ("unavailable", "the request took too long and was given up".to_owned()),
        status if status.is_server_error() => ("internal", internal()),
        status => ("invalid", status.canonical_reason().unwrap_or("the request was refused").to_owned()),
    };
    Draft { code, detail, retry_after: None }
}

fn internal() -> String {
    "something went wrong on our side; the log of the control plane has it under this request id".to_owned()
}

/// Gives every request an id, every error its form, and every answer its line in log and metrics.
pub(super) async fn finish(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = HEXLOWER.encode(&gateway_net::random::<8>());
    request.extensions_mut().insert(RequestId(id.clone()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = Instant::now();
    let span = tracing::info_span!("request", id = %id);
    let response = tracing::Instrument::instrument(next.run(request), span.clone()).await;
    let status = response.status();
    app.metrics.request(status.as_u16());
    span.in_scope(|| tracing::debug!(%method, path, status = status.as_u16(), took = ?started.elapsed(), "answered"));
    let mut response =
        if status.is_client_error() || status.is_server_error() { problem(response, &id) } else { response };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

fn problem(response: Response, id: &str) -> Response {
    let status = response.status();
    let draft = response.extensions().get::<Draft>().cloned().unwrap_or_else(|| by_status(status));
    let body = Problem {
        code: draft.code.to_owned(),
        status: status.as_u16(),
        detail: draft.detail,
        request_id: Some(id.to_owned()),
    };
    let (mut parts, _) = response.into_parts();
    let json = Json(body).into_response().into_body();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(wait) = draft.retry_after {
        parts.headers.insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
    }
    if status == StatusCode::UNAUTHORIZED {
        parts.headers.entry(header::WWW_AUTHENTICATE).or_insert(HeaderValue::from_static("Bearer"));
    }
    Response::from_parts(parts, json)
}

/// Refuses an address that asks too often, before anything else is looked at.
pub(super) async fn limit_addresses(State(app): State<App>, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ClientAddress>().copied();
    if let Some(ClientAddress(address)) = address
        && let Err(wait) = app.limits.addresses.check(&address)
    {
        return ApiError(ServiceError::RateLimited(wait)).into_response();
    }
    next.run(request).await
}
