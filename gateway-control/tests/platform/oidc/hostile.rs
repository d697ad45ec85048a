//! Replays, forged tokens, a provider that misbehaves, and browsers that are sent elsewhere.

use std::time::Duration;

use gateway_proto::api::platform::{SignInWays, oidc_challenge};
use serde_json::{Value, json};
use url::Url;

use super::{
    VERIFIER, answer, code, come_back, control_for, finish,
    provider::{CLIENT, Manner, Provider, Signature},
    sign_in, start, verified,
};
use crate::database;

#[tokio::test]
async fn a_sign_in_is_finished_once_in_time_and_by_whoever_started_it() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let claims = verified("1", &hospital.session.user.email);
    let started = start(&control).await;
    let back = provider.sign_in(&started.authorization_url, claims.clone());
    let first = come_back(&control, &back).await.unwrap();
    // The state is good once, also with another code of the provider.
    assert_eq!(come_back(&control, &back).await.unwrap_err()["code"], "oidc_attempt");
    let other = provider.sign_in(&started.authorization_url, claims.clone());
    assert_eq!(come_back(&control, &other).await.unwrap_err()["code"], "oidc_attempt");
    // Who has the code without the verifier has nothing, and spends nothing.
    let stolen = json!({"code": first, "verifier": "another"});
    let (status, problem) = answer(control.request("POST", "/api/v1/oidc/sessions").json(&stolen)).await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("oidc_attempt")));
    assert_eq!(finish(&control, &first, None).await.0, 201);
    assert_eq!(finish(&control, &first, None).await.1["code"], "oidc_attempt", "the code is good once");
    // A code of the provider that it has taken back already.
    let started = start(&control).await;
    let back = provider.sign_in(&started.authorization_url, claims.clone());
    let mut pairs: Vec<(String, String)> = back.query_pairs().into_owned().collect();
    pairs[1].1 = "used".to_owned();
    let used = Url::parse_with_params(&back.as_str()[..back.as_str().find('?').unwrap()], &pairs).unwrap();
    assert_eq!(come_back(&control, &used).await.unwrap_err()["code"], "oidc_attempt");
    // The state of one sign-in with the code of another: PKCE and nonce are those of the other.
    let (one, two) = (start(&control).await, start(&control).await);
    let (one, two) = (
        provider.sign_in(&one.authorization_url, claims.clone()),
        provider.sign_in(&two.authorization_url, claims.clone()),
    );
    let state = one.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let foreign = two.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let mixed = Url::parse_with_params(
        "https://x.example/api/v1/oidc/callback/corporate",
        [("state", state), ("code", foreign)],
    );
    assert_eq!(come_back(&control, &mixed.unwrap()).await.unwrap_err()["code"], "oidc_attempt");
    // Made up, empty, or of another kind.
    for state in ["", "x", "AAAA", first.as_str()] {
        let url = Url::parse_with_params(
            "https://x.example/api/v1/oidc/callback/corporate",
            [("state", state), ("code", "c")],
        );
        assert_eq!(come_back(&control, &url.unwrap()).await.unwrap_err()["code"], "oidc_attempt", "{state}");
    }
    // The person declines; another provider answers.
    let started = start(&control).await;
    let back = provider.sign_in(&started.authorization_url, claims.clone());
    let state = back.query_pairs().next().unwrap().1.into_owned();
    let url = |more: (&str, &str)| {
        let pairs = [("state", state.as_str()), more];
        Url::parse_with_params("https://x.example/api/v1/oidc/callback/corporate", pairs).unwrap()
    };
    let declined = come_back(&control, &url(("error", "access_denied"))).await.unwrap_err();
    assert_eq!(declined["code"], "oidc_refused");
    assert!(declined["detail"].as_str().unwrap().ends_with("access_denied"));
    let started = start(&control).await;
    let mut back = provider.sign_in(&started.authorization_url, claims.clone());
    back.query_pairs_mut().append_pair("iss", "https://elsewhere.example");
    assert_eq!(come_back(&control, &back).await.unwrap_err()["code"], "oidc_token");
    // Ten minutes at the provider, two with the code.
    let started = start(&control).await;
    let back = provider.sign_in(&started.authorization_url, claims.clone());
    control.clock.advance(Duration::from_secs(600));
    provider.is_ahead(600);
    assert_eq!(come_back(&control, &back).await.unwrap_err()["code"], "oidc_attempt");
    let started = start(&control).await;
    let late = come_back(&control, &provider.sign_in(&started.authorization_url, claims)).await.unwrap();
    control.clock.advance(Duration::from_secs(120));
    assert_eq!(finish(&control, &late, None).await.1["code"], "oidc_attempt");
    let bytes = database::contents(control.stop().await.path());
    for secret in [first.as_str(), late.as_str(), "an-access-token", VERIFIER] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is in the database");
    }
}

#[tokio::test]
async fn a_code_of_one_provider_never_reaches_another() {
    let (honest, hostile) = (Provider::start().await, Provider::start().await);
    let control = control_for(&honest, &hostile.section_named("hostile", "")).await;
    let hospital = control.organization("Hospital").await;
    let claims = verified("1", &hospital.session.user.email);
    let start = async |provider: &str| {
        let body = json!({"challenge": oidc_challenge(VERIFIER), "provider": provider});
        answer(control.request("POST", "/api/v1/oidc/start").json(&body)).await.1["authorization_url"].clone()
    };
    // The victim signs in at the honest provider, and comes back with the state of a sign-in at the hostile one.
    let (at_honest, at_hostile) = (start("corporate").await, start("hostile").await);
    let back = honest.sign_in(at_honest.as_str().unwrap(), claims.clone());
    assert_eq!(back.path(), "/api/v1/oidc/callback/corporate", "an address of its own for each provider");
    let query = |url: &Url, name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let foreign = query(&hostile.sign_in(at_hostile.as_str().unwrap(), claims), "state");
    let genuine = query(&back, "code");
    let mixed = Url::parse_with_params(
        "https://x.example/api/v1/oidc/callback/corporate",
        [("state", foreign.as_str()), ("code", genuine.as_str())],
    );
    assert_eq!(come_back(&control, &mixed.unwrap()).await.unwrap_err()["code"], "oidc_attempt");
    assert_eq!(hostile.asked("/token"), 0, "the hostile provider was shown the code");
    // Neither was spent: both sign-ins go on where they belong.
    assert!(come_back(&control, &back).await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_not_the_providers_for_us_and_now_signs_nobody_in() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let email = hospital.session.user.email.clone();
    let now = gateway_net::time::unix_secs();
    let mut tried = 0;
    for (claim, value) in [
        ("nonce", json!("another")),
        ("nonce", json!(null)),
        ("aud", json!("another-client")),
        ("aud", json!([CLIENT, "another-client"])),
        ("aud", json!([])),
        ("azp", json!("another-client")),
        ("iss", json!("https://elsewhere.example")),
        ("iss", json!(format!("{}/", provider.issuer))),
        ("exp", json!(now - 61)),
        ("iat", json!(now + 300)),
        ("iat", json!(now - 3600)),
        ("sub", json!("")),
        ("sub", json!("x".repeat(256))),
        ("sub", json!("ümlaut")),
    ] {
        tried += 1;
        let mut claims = verified("1", &email);
        claims[claim] = value.clone();
        let refused = sign_in(&control, &provider, claims).await.expect_err(claim);
        assert_eq!(refused["code"], "oidc_token", "{claim} = {value}: {refused}");
    }
    // What is missing altogether, or of another type, is no token.
    for (claim, value) in [("exp", json!(null)), ("iat", json!("now")), ("sub", json!(null)), ("iss", json!(null))] {
        tried += 1;
        let mut claims = verified("1", &email);
        claims[claim] = value;
        let refused = sign_in(&control, &provider, claims).await.expect_err(claim);
        assert!(refused["code"] == "oidc_provider" || refused["code"] == "oidc_token", "{claim}: {refused}");
    }
    for signature in [
        Signature::None,
        Signature::HmacOfPublicKey,
        Signature::HmacOfSecret,
        Signature::Foreign,
        Signature::Tampered,
        Signature::Missing,
    ] {
        tried += 1;
        provider.signs(signature);
        let refused = sign_in(&control, &provider, verified("1", &email)).await.unwrap_err();
        assert_eq!(refused["code"], "oidc_token", "{signature:?}: {refused}");
        // Keys are asked for again seldom.
        control.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(tried, 24);
    assert!(hospital.get::<SignInWays>("/me/sign-in").await.identities.is_empty(), "nobody was linked");
    provider.signs(Signature::Rsa);
    assert!(sign_in(&control, &provider, verified("1", &email)).await.is_ok());
}

#[tokio::test]
async fn new_keys_of_the_provider_are_found_when_a_token_names_them() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let claims = verified("1", &hospital.session.user.email);
    assert!(sign_in(&control, &provider, claims.clone()).await.is_ok());
    assert!(sign_in(&control, &provider, claims.clone()).await.is_ok());
    let asked = || (provider.asked("/.well-known/openid-configuration"), provider.asked("/jwks"));
    assert_eq!(asked(), (1, 1), "what is known is not asked for again");
    provider.rotate("second");
    // Not within ten seconds, whatever comes.
    assert_eq!(code(sign_in(&control, &provider, claims.clone()).await), "oidc_token");
    assert_eq!(asked(), (1, 1));
    control.clock.advance(Duration::from_secs(11));
    assert!(sign_in(&control, &provider, claims.clone()).await.is_ok());
    assert_eq!(asked(), (1, 2));
    // New keys under the old name.
    provider.rotate("second");
    control.clock.advance(Duration::from_secs(11));
    assert!(sign_in(&control, &provider, claims.clone()).await.is_ok());
    control.clock.advance(Duration::from_secs(3600));
    provider.is_ahead(3622);
    assert!(sign_in(&control, &provider, claims).await.is_ok());
    assert_eq!(asked(), (2, 4), "after an hour everything is asked for anew");
}

#[tokio::test]
async fn a_provider_that_misbehaves_is_named_as_such_and_forgiven() {
    let mut provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let claims = verified("1", &hospital.session.user.email);
    let begin = async || {
        let body = json!({"challenge": oidc_challenge(VERIFIER)});
        answer(control.request("POST", "/api/v1/oidc/start").json(&body)).await
    };
    let manners = [Manner::OtherIssuer, Manner::Redirects, Manner::Endless, Manner::Html, Manner::Unavailable];
    for manner in manners {
        provider.behaves(manner);
        let (status, problem) = begin().await;
        assert_eq!((status, problem["code"].as_str()), (502, Some("oidc_provider")), "{manner:?}: {problem}");
    }
    provider.behaves(Manner::Good);
    let started = start(&control).await;
    // The same between the two steps.
    for manner in &manners[1..] {
        let back = provider.sign_in(&start(&control).await.authorization_url, claims.clone());
        provider.behaves(*manner);
        let problem = come_back(&control, &back).await.unwrap_err();
        assert_eq!(
            (problem["status"].as_u64(), problem["code"].as_str()),
            (Some(502), Some("oidc_provider")),
            "{manner:?}"
        );
        provider.behaves(Manner::Good);
    }
    let back = provider.sign_in(&started.authorization_url, claims.clone());
    assert!(come_back(&control, &back).await.is_ok());
    let back = provider.sign_in(&start(&control).await.authorization_url, claims);
    provider.stop().await;
    let problem = come_back(&control, &back).await.unwrap_err();
    assert_eq!(problem["code"], "oidc_provider");
    assert!(problem["detail"].as_str().unwrap().contains("cannot be reached"));
    // Passwords are as good as ever.
    hospital.sign_in().await;
}

#[tokio::test]
async fn the_browser_goes_back_to_the_machine_that_started_and_nowhere_else() {
    let provider = Provider::start().await;
    let control = control_for(&provider, "").await;
    let hospital = control.organization("Hospital").await;
    let challenge = oidc_challenge(VERIFIER);
    let begin = async |body: Value| answer(control.request("POST", "/api/v1/oidc/start").json(&body)).await;
    for body in [
        json!({"challenge": challenge.to_uppercase()}),
        json!({"challenge": "short"}),
        json!({"challenge": challenge, "loopback_port": 0}),
        json!({"challenge": challenge, "loopback_port": 70000}),
        json!({"challenge": challenge, "redirect": "https://elsewhere.example"}),
    ] {
        assert_eq!(begin(body.clone()).await.0, 422, "{body}");
    }
    assert_eq!(begin(json!({"challenge": challenge, "provider": "other"})).await.0, 404);
    let visit = async |url: &Url| {
        let path = format!("{}?{}", url.path(), url.query().unwrap());
        let answer = control.request("GET", &path).send().await.unwrap();
        assert_eq!(answer.status(), 303);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
        answer.headers()["location"].to_str().unwrap().parse::<Url>().unwrap()
    };
    let (_, started) = begin(json!({"challenge": challenge, "loopback_port": 4711})).await;
    let url = started["authorization_url"].as_str().unwrap();
    assert!(!url.contains(&challenge), "who sees the address cannot guess where the browser goes back to");
    let place = visit(&provider.sign_in(url, verified("1", &hospital.session.user.email))).await;
    assert_eq!(
        (place.host_str(), place.port(), &place.path()[1..]),
        (Some("127.0.0.1"), Some(4711), challenge.as_str())
    );
    let brought = place.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    assert_eq!(finish(&control, &brought, None).await.0, 201);
    // Refusals come back as well.
    let (_, started) = begin(json!({"challenge": challenge, "loopback_port": 4711})).await;
    let url = started["authorization_url"].as_str().unwrap();
    let back = provider.sign_in(url, json!({"sub": "1", "nonce": "another"}));
    let place = visit(&back).await;
    let value = |name: &str| place.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    assert_eq!((value("error").as_deref(), value("code")), (Some("oidc_token"), None));
    assert!(value("detail").unwrap().contains("nonce"));
}
