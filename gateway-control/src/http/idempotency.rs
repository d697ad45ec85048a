//! `Idempotency-Key`: a mutating request of a signed-in user, or of the operator, may be sent again, and is done once. Where nobody
//! is there whose key it could be, the route refuses it.

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use tracing::Instrument;

use super::{
    App, MAX_BODY,
    extract::{after_scheme, bearer},
    problem::ApiError,
};
use crate::service::{Actor, Claim, GivenAnswer, Known, ServiceError};

/// The header, in the case that names have here.
pub(super) const KEY: &str = "idempotency-key";
/// Set on an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Answers that hold a secret, which is shown once: by the end of the path.
const SECRET_ANSWERS: &[&str] = &[
    "/platform-tokens/operator/rotate",
    "/platform-tokens/registration/rotate",
    "/enrollment-codes",
    "/api-tokens",
    "/invitations",
    "/tokens",
    "/tenant/organizations",
    "/totp",
    "/totp/confirm",
    "/sessions/current",
];

/// Gives a repeated request the answer it got, or lets it through with its claim.
pub(super) async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    let mutates = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let Some(key) = request.headers().get(KEY).filter(|_| mutates).cloned() else { return next.run(request).await };
    match claimed(&app, request, &key).await {
        Ok(Step::Done(response)) => response,
        Ok(Step::Do(request, claim)) => {
            let secret = SECRET_ANSWERS.iter().any(|end| request.uri().path().ends_with(end));
            let Some(claim) = claim else { return next.run(*request).await };
            let service = app.service.clone();
            let work = async move {
                let response = next.run(*request).await;
                keep(&app, &claim, response, secret).await.unwrap_or_else(IntoResponse::into_response)
            };
            let response = service.to_its_end(work.in_current_span()).await;
            response.unwrap_or_else(|error| ApiError::from(error).into_response())
        }
        Err(error) => error.into_response(),
    }
}

enum Step {
    Done(Response),
    Do(Box<Request>, Option<Claim>),
}

/// Who makes a request with a key.
enum Holder {
    User(Box<Actor>),
    Operator,
}

async fn holder(app: &App, headers: &HeaderMap) -> Option<Holder> {
    if let Some(token) = bearer(headers) {
        let actor = app.service.authenticate(&token, "").await.ok()?;
        return Some(Holder::User(Box::new(actor)));
    }
    let token = after_scheme(headers, "Operator")?;
    app.service.is_operator(&token).await.ok()?.then_some(Holder::Operator)
}

async fn claimed(app: &App, request: Request, key: &HeaderValue) -> Result<Step, ApiError> {
    let key = key.to_str().ok().filter(|key| (1..=200).contains(&key.len())).ok_or_else(|| {
        ServiceError::Invalid("Idempotency-Key is 1 to 200 visible ASCII characters, a UUID for example".to_owned())
    })?;
    // Who is neither a user nor the operator is told so by the route.
    let Some(holder) = holder(app, request.headers()).await else { return Ok(Step::Do(Box::new(request), None)) };
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| ServiceError::Invalid("the body could not be read, or is larger than 1 MiB".to_owned()))?;
    let condition = parts.headers.get(header::IF_MATCH).map(|value| value.as_bytes()).unwrap_or_default();
    let actor = match &holder {
        Holder::User(actor) => Some(actor.as_ref()),
        Holder::Operator => None,
    };
    let request_hash = app.service.request_hash(actor, parts.method.as_str(), parts.uri.path(), condition, &body);
    let claim = match actor {
        Some(actor) => Claim::of_user(actor, key.to_owned(), request_hash),
        None => Claim::of_operator(key.to_owned(), request_hash),
    };
    match app.service.look_up(&claim).await? {
        Known::Answered(answer) => Ok(Step::Done(again(answer))),
        Known::New => {
            parts.extensions.insert(claim.clone());
            Ok(Step::Do(Box::new(Request::from_parts(parts, Body::from(body))), Some(claim)))
        }
    }
}

/// The answer as it was, and that it was given before.
fn again(answer: GivenAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = Response::new(Body::from(answer.text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(tag) = answer.etag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Keeps the answer to what was done. That it cannot be kept is no reason to withhold it.
async fn keep(app: &App, claim: &Claim, response: Response, secret: bool) -> Result<Response, ApiError> {
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|_| ServiceError::Internal("an answer has no end"))?;
    let text = String::from_utf8_lossy(&body).into_owned();
    let etag = parts.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    let answer = GivenAnswer { status: parts.status.as_u16(), text, etag };
    if let Err(error) = app.service.keep_answer(claim, answer, secret).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the answer to an idempotent request is not kept");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}
