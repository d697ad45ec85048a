//! Signing out of a session that was made through a provider: it ends here, whatever the provider says of its own.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use gateway_proto::api::platform::{Session, SignedOut, oidc_challenge};
use serde_json::{Value, json};
use url::Url;

use super::{
    VERIFIER, answer, control_for, finish,
    provider::{CLIENT, Manner, Provider},
    sign_in, verified,
};
use crate::{database, harness::Control};

/// Signs in with a browser on the client's own machine.
async fn sign_in_here(control: &Control, provider: &Provider, claims: Value) -> Session {
    let body = json!({"challenge": oidc_challenge(VERIFIER), "loopback_port": 4711});
    let (_, started) = answer(control.request("POST", "/api/v1/oidc/start").json(&body)).await;
    let back = provider.sign_in(started["authorization_url"].as_str().unwrap(), claims);
    let path = format!("{}?{}", back.path(), back.query().unwrap());
    let sent = control.request("GET", &path).send().await.unwrap();
    let place: Url = sent.headers()["location"].to_str().unwrap().parse().unwrap();
    let brought = place.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let (status, session) = finish(control, &brought, None).await;
    assert_eq!(status, 201, "{session}");
    serde_json::from_value(session).unwrap()
}

/// Signs out of what is over then; the status, and where the session at the provider ends.
async fn sign_out(control: &Control, session: &Session) -> (u16, Option<SignedOut>) {
    let request = control.request("DELETE", "/api/v1/sessions/current").bearer_auth(&session.token.0);
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    let me = control.request("GET", "/api/v1/me").bearer_auth(&session.token.0).send().await.unwrap();
    assert_eq!(me.status(), 401);
    (status, serde_json::from_str(&text).ok())
}

/// What a browser that opens it brings to the provider.
fn brought(told: &SignedOut) -> BTreeMap<String, String> {
    told.end_session_url.parse::<Url>().unwrap().query_pairs().into_owned().collect()
}

#[tokio::test]
async fn who_signs_out_is_told_where_the_session_at_the_provider_ends_and_what_reminds_it() {
    let provider = Provider::start().await;
    let end = format!("{}/logout?tenant=7", provider.issuer);
    provider.ends_sessions_at(json!(end));
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let claims = verified("1", &hospital.session.user.email);
    let (one, _other) = (
        sign_in_here(&control, &provider, claims.clone()).await,
        sign_in_here(&control, &provider, claims.clone()).await,
    );
    let (status, told) = sign_out(&control, &one).await;
    let told = told.unwrap();
    assert_eq!((status, told.provider.as_str()), (200, "corporate"));
    assert!(told.end_session_url.starts_with(&end), "{}", told.end_session_url);
    let pairs = brought(&told);
    assert_eq!((pairs["tenant"].as_str(), pairs["client_id"].as_str()), ("7", CLIENT));
    let parts: Vec<&str> = pairs["id_token_hint"].split('.').collect();
    let token: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap()).unwrap();
    assert_eq!((parts.len(), &token["sub"]), (3, &json!("1")));
    // A code that a person carries is short: without the token, the provider asks.
    let by_hand = sign_in(&control, &provider, claims).await.unwrap();
    let pairs = brought(&sign_out(&control, &by_hand).await.1.unwrap());
    assert_eq!((pairs["client_id"].as_str(), pairs.contains_key("id_token_hint")), (CLIENT, false));
    // One that waits in the database is readable for nobody.
    let head = parts[0].to_owned();
    drop(hospital);
    let directory = control.stop().await;
    let content = database::contents(directory.path());
    assert!(!content.windows(head.len()).any(|bytes| bytes == head.as_bytes()));
}

#[tokio::test]
async fn a_provider_that_says_nothing_of_use_keeps_nobody_from_signing_in_or_out() {
    let mut provider = Provider::start().await;
    provider.ends_sessions_at(json!(7));
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let claims = verified("1", &hospital.session.user.email);
    let issuer = provider.issuer.clone();
    let ends = [
        (json!(7), 204),
        (json!("http://login.example/logout"), 204),
        (json!("logout"), 204),
        (json!(null), 204),
        (json!(format!("{issuer}/logout")), 200),
    ];
    let mut sessions = Vec::new();
    for _ in 0..ends.len() + 2 {
        sessions.push(sign_in(&control, &provider, claims.clone()).await.unwrap());
    }
    for (end, status) in ends {
        provider.ends_sessions_at(end.clone());
        // What it says is believed for an hour.
        control.clock.advance(Duration::from_secs(3_601));
        let (answered, told) = sign_out(&control, &sessions.pop().unwrap()).await;
        assert_eq!((answered, told.is_some()), (status, status == 200), "{end}");
    }
    control.clock.advance(Duration::from_secs(3_601));
    provider.behaves(Manner::Unavailable);
    assert_eq!(sign_out(&control, &sessions.pop().unwrap()).await.0, 204);
    provider.stop().await;
    assert_eq!(sign_out(&control, &sessions.pop().unwrap()).await.0, 204);
}
