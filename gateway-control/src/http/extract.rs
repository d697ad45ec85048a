//! What handlers ask of a request, with refusals in the form of the API.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    App, ClientAddress,
    idempotency::KEY as IDEMPOTENCY_KEY,
    problem::{ApiError, RequestId},
};
use crate::{
    service::{Actor, Claim, Condition, OperatorCaller, ServiceError, Stranger, TokenVerifier, etag, permission::Act},
    turns::Turn,
};

/// A signed-in user, and the token of the session.
pub(super) struct SignedIn(pub(super) Actor, pub(super) String);

impl FromRequestParts<App> for SignedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token = authorization(parts, "Bearer").ok_or(ServiceError::Unauthenticated(
            "sign in first: POST /api/v1/sessions, then send its token as 'Authorization: Bearer …'",
        ))?;
        let mut actor = app.service.authenticate(&token, &request_id(parts)).await?;
        actor.claim = parts.extensions.get::<Claim>().cloned();
        actor.if_match = condition(parts)?;
        app.limits.users.check(&actor.user.id).map_err(ServiceError::RateLimited)?;
        if parts.method.is_safe() {
            app.service.may_read(&mut actor).await?;
        }
        Ok(Self(actor, token))
    }
}

/// An operator of the platform.
pub(super) struct Operator(pub(super) OperatorCaller);

impl FromRequestParts<App> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let operator = operator(parts, app).await?;
        // What the operator changes has no tag, but for what asks for a `ConditionalOperator`.
        unconditional(parts)?;
        Ok(Self(operator))
    }
}

/// An operator of the platform who changes something that has a tag.
pub(super) struct ConditionalOperator(pub(super) OperatorCaller);

impl FromRequestParts<App> for ConditionalOperator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let operator = operator(parts, app).await?;
        Ok(Self(OperatorCaller { if_match: condition(parts)?, ..operator }))
    }
}

async fn operator(parts: &Parts, app: &App) -> Result<OperatorCaller, ApiError> {
    let token = authorization(parts, "Operator").ok_or(ServiceError::Unauthenticated(
        "this is for the platform's operator: send the operator token as 'Authorization: Operator …'",
    ))?;
    if !app.service.is_operator(&token).await? {
        return Err(app.service.note_refused_operator(&stranger(parts)).into());
    }
    let claim = parts.extensions.get::<Claim>().cloned();
    Ok(OperatorCaller { request: request_id(parts), if_match: None, claim })
}

/// A signed-in user or an operator. The turn of a reading user is the next one's when this is dropped: with the answer.
pub(super) struct Somebody {
    _reading: Option<Arc<Turn>>,
}

impl FromRequestParts<App> for Somebody {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if authorization(parts, "Operator").is_some() {
            Operator::from_request_parts(parts, app).await?;
            return Ok(Self { _reading: None });
        }
        let SignedIn(actor, _) = SignedIn::from_request_parts(parts, app).await?;
        actor.may(Act::Read)?;
        Ok(Self { _reading: actor.reading })
    }
}

/// Who asks about a device token: a gateway with an assertion for this request, or a signed-in user.
pub(super) struct Verifier(pub(super) TokenVerifier);

impl FromRequestParts<App> for Verifier {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        // Before an assertion is spent on it.
        unconditional(parts)?;
        keyless(parts)?;
        Ok(Self(match authorization(parts, "Gateway") {
            Some(token) => TokenVerifier::Gateway(app.service.authenticate_introspection(&token).await?),
            None => TokenVerifier::User(Box::new(SignedIn::from_request_parts(parts, app).await?.0)),
        }))
    }
}

/// The text after the scheme of a request's Authorization header.
pub(super) fn authorization(parts: &Parts, scheme: &str) -> Option<String> {
    after_scheme(&parts.headers, scheme)
}

/// The token of a session.
pub(super) fn bearer(headers: &HeaderMap) -> Option<String> {
    after_scheme(headers, "Bearer")
}

/// The text after the scheme of the Authorization header.
pub(super) fn after_scheme(headers: &HeaderMap, scheme: &str) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (named, token) = value.split_once(' ')?;
    // Schemes know no case (RFC 9110, 11.1).
    named.eq_ignore_ascii_case(scheme).then(|| token.trim().to_owned())
}

/// An object with its entity tag.
pub(super) struct Tagged<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let tag = etag(&self.0);
        ([(header::ETAG, tag)], Json(self.0)).into_response()
    }
}

/// A JSON body; an empty one is an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json"));
        let bytes = Bytes::from_request(request, app)
            .await
            .map_err(|_| ServiceError::Invalid("the body could not be read, or is larger than 1 MiB".to_owned()))?;
        if !bytes.is_empty() && !json {
            return Err(ServiceError::Invalid("the body is not declared as application/json".to_owned()).into());
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(text)
            .map_err(|error| ServiceError::Invalid(format!("the body is not what is expected here: {error}")))?;
        Ok(Self(value))
    }
}

/// The variable parts of the path.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for At<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        // A path that names nothing, by a malformed id or an unknown act, is an unknown path.
        let Path(value) =
            Path::from_request_parts(parts, app).await.map_err(|_| ServiceError::NotFound("id or act"))?;
        Ok(Self(value))
    }
}

/// The query.
pub(super) struct Ask<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Ask<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Query(value) = Query::from_request_parts(parts, app)
            .await
            .map_err(|error| ServiceError::Invalid(format!("the query is not understood: {}", error.body_text())))?;
        Ok(Self(value))
    }
}

/// A list that comes whole: nothing can be asked of it.
pub(super) struct Whole;

impl FromRequestParts<App> for Whole {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        if parts.uri.query().is_none_or(str::is_empty) {
            return Ok(Self);
        }
        let told = "this list comes on one page and has no filter: leave the query out";
        Err(ServiceError::Invalid(told.to_owned()).into())
    }
}

/// The client's address; requests without one (never over the network) share one.
pub(super) struct Address(pub(super) std::net::IpAddr);

impl FromRequestParts<App> for Address {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(Self(address(parts)))
    }
}

/// Somebody who is not signed in, and whom nothing with a tag is shown to.
impl FromRequestParts<App> for Stranger {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        unconditional(parts)?;
        keyless(parts)?;
        Ok(stranger(parts))
    }
}

/// The condition of a request.
fn condition(parts: &Parts) -> Result<Option<Condition>, ApiError> {
    let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(None) };
    let tags = value.to_str();
    let tags = tags.map_err(|_| ServiceError::Invalid("If-Match is not a list of entity tags".to_owned()))?;
    Ok(Some(Condition::new(tags.to_owned())))
}

/// Refuses a change on a condition where there is no object to look at. Whoever asks, one of those above says so: a condition
/// that is passed over would be taken for one that held.
fn unconditional(parts: &Parts) -> Result<(), ApiError> {
    if !parts.method.is_safe() && parts.headers.contains_key(header::IF_MATCH) {
        return Err(ServiceError::Unconditional.into());
    }
    Ok(())
}

/// Refuses the key of a request that nobody makes whose key it could be, or that changes nothing: a key that is passed over would
/// be taken for one that keeps the request from being done twice.
fn keyless(parts: &Parts) -> Result<(), ApiError> {
    if !parts.method.is_safe() && parts.headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(ServiceError::KeyNotKept.into());
    }
    Ok(())
}

fn stranger(parts: &Parts) -> Stranger {
    Stranger { address: address(parts), request: request_id(parts) }
}

fn address(parts: &Parts) -> std::net::IpAddr {
    let unknown = std::net::Ipv4Addr::UNSPECIFIED.into();
    parts.extensions.get::<ClientAddress>().map_or(unknown, |client| client.0)
}

/// The id that the answer carries, too.
fn request_id(parts: &Parts) -> String {
    parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use gateway_net::shutdown::Shutdown;

    use super::*;
    use crate::{http::Rates, test_world::World};

    #[tokio::test]
    async fn whoever_reads_what_is_everybodys_has_its_turn_until_the_answer() {
        let world = World::open().await;
        let rate = NonZeroU32::new(100).unwrap();
        let rates = Rates { requests_per_second: rate, logins_per_minute: rate };
        let app = App::new(world.service.clone(), rates, Arc::default(), Shutdown::manual());
        let bearer = format!("Bearer {}", world.session.token.0);
        let request = axum::http::Request::builder().header(header::AUTHORIZATION, bearer).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        let reading = || {
            let counts = app.service.turn_counts();
            counts.iter().find(|(kind, _)| *kind == "reads").unwrap().1.at_work.get()
        };
        let somebody = Somebody::from_request_parts(&mut parts, &app).await.unwrap();
        assert_eq!(reading(), 1);
        drop(somebody);
        assert_eq!(reading(), 0);
    }
}
