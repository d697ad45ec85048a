//! What the provider answers, and how it misbehaves there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::digest;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::json;

use super::{CLIENT, Inner, Manner, SECRET, Signature};

pub(super) fn router(inner: Arc<Mutex<Inner>>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/token", post(token))
        .route("/userinfo", get(user_info))
        .with_state(inner)
}

/// What the manner of the moment answers in the place of the real answer.
fn mannered(inner: &Mutex<Inner>, path: &str) -> Option<Response> {
    let mut inner = inner.lock().unwrap();
    *inner.requests.entry(path.to_owned()).or_default() += 1;
    match inner.manner {
        Manner::Redirects => {
            Some((StatusCode::FOUND, [(header::LOCATION, format!("{}{path}", inner.issuer))]).into_response())
        }
        Manner::Endless => {
            let body = format!("{{\"x\": \"{}\"}}", "x".repeat(1 << 20));
            Some(([(header::CONTENT_TYPE, "application/json")], body).into_response())
        }
        Manner::Html => Some(axum::response::Html("<h1>Sign in</h1>").into_response()),
        Manner::Unavailable => Some(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        Manner::Good | Manner::OtherIssuer | Manner::StrangeAccessToken | Manner::OtherUserInfo => None,
    }
}

async fn discovery(State(inner): State<Arc<Mutex<Inner>>>) -> Response {
    if let Some(answer) = mannered(&inner, "/.well-known/openid-configuration") {
        return answer;
    }
    let inner = inner.lock().unwrap();
    let elsewhere = inner.manner == Manner::OtherIssuer;
    let issuer = if elsewhere { "https://elsewhere.example" } else { &inner.issuer };
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{}/authorize", inner.issuer),
        "token_endpoint": format!("{}/token", inner.issuer),
        "userinfo_endpoint": format!("{}/userinfo", inner.issuer),
        "jwks_uri": format!("{}/jwks", inner.issuer),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
    });
    if !inner.session_end.is_null() {
        document["end_session_endpoint"] = inner.session_end.clone();
    }
    Json(document).into_response()
}

async fn jwks(State(inner): State<Arc<Mutex<Inner>>>) -> Response {
    mannered(&inner, "/jwks").unwrap_or_else(|| Json(inner.lock().unwrap().keys.jwks()).into_response())
}

async fn user_info(State(inner): State<Arc<Mutex<Inner>>>) -> Response {
    if let Some(answer) = mannered(&inner, "/userinfo") {
        return answer;
    }
    let inner = inner.lock().unwrap();
    let mut claims = inner.user_info.clone();
    claims["sub"] = inner.subject.clone();
    if inner.manner == Manner::OtherUserInfo {
        claims["sub"] = json!("somebody else");
    }
    Json(claims).into_response()
}

async fn token(State(inner): State<Arc<Mutex<Inner>>>, headers: HeaderMap, body: String) -> Response {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    if let Some(answer) = mannered(&inner, "/token") {
        return answer;
    }
    let mut inner = inner.lock().unwrap();
    let refused = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    let basic = format!("Basic {}", BASE64.encode(format!("{CLIENT}:{}", SECRET.replace(' ', "+")).as_bytes()));
    if headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) != Some(&basic) {
        return refused("invalid_client");
    }
    // Each code is good once.
    let Some(code) = inner.codes.remove(&form["code"]) else { return refused("invalid_grant") };
    let proof = BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, form["code_verifier"].as_bytes()).as_ref());
    if proof != code.challenge || form["redirect_uri"] != code.redirect {
        return refused("invalid_grant");
    }
    inner.subject = code.claims["sub"].clone();
    let access_token = if inner.manner == Manner::StrangeAccessToken { "line\nbreak" } else { "an-access-token" };
    let mut answer = json!({"access_token": access_token, "token_type": "Bearer", "expires_in": 300});
    if inner.signature != Signature::Missing {
        answer["id_token"] = json!(inner.id_token(&code));
    }
    Json(answer).into_response()
}
