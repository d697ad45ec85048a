//! Devices, behaviors, and the tokens of devices.

use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use gateway_proto::{
    api::{
        Problem,
        gateway::INTROSPECT_PATH,
        platform::{
            Behavior, CreatedDeviceToken, Device, DeviceKind, DeviceToken, Introspection, TokenKey, TokenKeyState,
        },
    },
    device_token::{DeviceClaims, Expected, KeyProof},
    jws::{JwkSet, JwsKey},
    signed::Assertion,
};
use serde_json::{Value, json};

use super::{
    database::is_postgres,
    harness::{Control, Gateway, Org},
};

async fn application(org: &Org<'_>, name: &str) -> Device {
    org.post("/devices", json!({"kind": "application", "name": name})).await
}

async fn token(org: &Org<'_>, device: &Device, body: Value) -> CreatedDeviceToken {
    org.post(&format!("/devices/{}/tokens", device.id), body).await
}

async fn ask(org: &Org<'_>, text: &str) -> Introspection {
    org.post("/device-tokens/introspect", json!({"token": text})).await
}

async fn jwks(control: &Control) -> JwkSet {
    let answer = control.request("GET", "/.well-known/jwks.json").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/jwk-set+json");
    assert_eq!(answer.headers()["cache-control"], "public, max-age=300");
    answer.json().await.unwrap()
}

async fn rotate(control: &Control, at_once: bool) -> Vec<TokenKey> {
    let answer = control.as_operator("POST", "/token-keys/rotate", json!({"at_once": at_once})).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    serde_json::from_value(answer.json::<Value>().await.unwrap()["items"].take()).unwrap()
}

#[tokio::test]
async fn every_organization_and_every_server_is_a_device_for_as_long_as_it_is_there() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let own: Vec<Device> = hospital.list("/devices").await;
    assert_eq!((own.len(), own[0].kind, own[0].name.as_str()), (1, DeviceKind::Application, "Hospital"));
    let path = format!("/devices/{}", own[0].id);
    assert_eq!(hospital.refused("DELETE", &path, None).await.code, "conflict");
    let server = hospital.server("main").await;
    let all: Vec<Device> = hospital.list("/devices").await;
    let device = all.iter().find(|device| device.kind == DeviceKind::Server).unwrap();
    assert_eq!((device.server_id, device.name.as_str()), (Some(server.id), "main"));
    let path = format!("/devices/{}", device.id);
    assert_eq!(hospital.refused("DELETE", &path, None).await.code, "conflict");
    assert_eq!(hospital.refused("PATCH", &path, Some(json!({"name": "x"}))).await.code, "invalid");
    let body = json!({"kind": "server", "name": "x"});
    assert_eq!(hospital.refused("POST", "/devices", Some(body)).await.code, "invalid");
    // A device that the server's gateway reaches stays without it; the server's tokens end.
    let body = json!({"kind": "fhir_endpoint", "name": "fhir", "server_id": server.id, "behaviors": ["fhir-query"]});
    let fhir: Device = hospital.post("/devices", body).await;
    let made = token(&hospital, device, json!({})).await;
    assert!(ask(&hospital, &made.token.0).await.active);
    assert_eq!(hospital.send("DELETE", &format!("/servers/{}", server.id), None).await.status(), 204);
    assert_eq!(ask(&hospital, &made.token.0).await.problem.as_deref(), Some("the token was revoked"));
    let left: Vec<Device> = hospital.list("/devices").await;
    assert_eq!(left.len(), 2);
    let left = left.iter().find(|device| device.id == fhir.id).unwrap();
    assert_eq!((left.server_id, left.behaviors.as_slice()), (None, &["fhir-query".to_owned()][..]));
}

#[tokio::test]
async fn a_device_is_changed_on_a_condition_and_names_known_behaviors_only() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let device = application(&hospital, "portal").await;
    let path = format!("/devices/{}", device.id);
    let seen = hospital.send("GET", &path, None).await;
    let tag = seen.headers()["etag"].clone();
    let change = |body: Value| {
        let request = control.request("PATCH", &format!("/api/v1{path}")).bearer_auth(&hospital.token);
        request.header("if-match", tag.clone()).json(&body).send()
    };
    assert_eq!(change(json!({"description": "the portal", "linkable_by": "tenant"})).await.unwrap().status(), 200);
    let answer = change(json!({"description": "again"})).await.unwrap();
    assert_eq!(answer.json::<Problem>().await.unwrap().code, "changed");
    for (body, code) in [
        (json!({"behaviors": ["telepathy"]}), "invalid"),
        (json!({"behaviors": ["\u{1b}[2J"]}), "invalid"),
        (json!({"linkable_by": "everyone"}), "invalid"),
        (json!({"server_id": lab.server("lis").await.id}), "not_found"),
        (json!({"organization_id": lab.id}), "invalid"),
    ] {
        assert_eq!(hospital.refused("PATCH", &path, Some(body.clone())).await.code, code, "{body}");
    }
    let body = json!({"kind": "application", "name": "PORTAL"});
    assert_eq!(hospital.refused("POST", "/devices", Some(body)).await.code, "conflict");
    let audit: Vec<Value> = hospital.list("/audit").await;
    let entry = audit.iter().find(|entry| entry["act"] == "device.update").unwrap();
    assert_eq!(entry["detail"], "description:  → the portal; linkable_by: organization → tenant");
    // A behavior that the operator adds is known from then on, and stays while something names it.
    let added = control.as_operator("PUT", "/behaviors/x12-270", json!({"description": "Eligibility"})).await;
    assert_eq!(added.status(), 200);
    assert_eq!(hospital.send("PATCH", &path, Some(json!({"behaviors": ["x12-270"]}))).await.status(), 200);
    assert!(hospital.list::<Behavior>("/behaviors").await.iter().any(|behavior| behavior.name == "x12-270"));
    assert_eq!(control.as_operator("DELETE", "/behaviors/x12-270", json!({})).await.status(), 409);
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(control.as_operator("DELETE", "/behaviors/x12-270", json!({})).await.status(), 204);
    assert_eq!(hospital.refused("PUT", "/behaviors/mine", Some(json!({"description": ""}))).await.status, 401);
    let server = hospital.server("main").await;
    let body = json!({"server_id": server.id, "name": "x", "engine": "127.0.0.1:1", "behavior": "x12-270"});
    assert_eq!(hospital.refused("POST", "/channels", Some(body)).await.code, "invalid");
}

#[tokio::test]
async fn devices_of_the_platform_are_made_by_its_operator_and_seen_by_everybody() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let body = json!({"kind": "document_gateway", "name": "Network", "behaviors": ["ihe-document-query"]});
    assert_eq!(hospital.refused("POST", "/system-devices", Some(body.clone())).await.status, 401);
    let made = control.as_operator("POST", "/system-devices", body).await;
    let made: Device = made.json().await.unwrap();
    assert_eq!(hospital.list::<Device>("/system-devices").await, std::slice::from_ref(&made));
    let path = format!("/devices/{}", made.id);
    assert_eq!(hospital.get::<Device>(&path).await, made);
    // Nobody but the operator changes it, and nobody makes tokens of it.
    assert_eq!(hospital.refused("PATCH", &path, Some(json!({"name": "x"}))).await.code, "not_found");
    assert_eq!(hospital.refused("DELETE", &path, None).await.code, "not_found");
    assert_eq!(hospital.refused("POST", &format!("{path}/tokens"), Some(json!({}))).await.code, "not_found");
    let own: Vec<Device> = hospital.list("/devices").await;
    assert_eq!(control.as_operator("DELETE", &format!("/system-devices/{}", own[0].id), json!({})).await.status(), 404);
    assert_eq!(control.as_operator("DELETE", &format!("/system-devices/{}", made.id), json!({})).await.status(), 204);
    assert_eq!(hospital.refused("GET", &path, None).await.code, "not_found");
}

#[tokio::test]
async fn a_token_is_verified_offline_with_the_published_keys() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let device = application(&hospital, "portal").await;
    let made = token(&hospital, &device, json!({"audience": "https://fhir.example"})).await;
    let keys = jwks(&control).await.usable();
    let (issuer, audience) = (control.ready.url.as_str(), "https://fhir.example");
    let expected = Expected { issuer, audience, keys: &keys, now: control.clock.unix_secs() };
    let claims = DeviceClaims::verify(&made.token.0, &expected).unwrap();
    assert_eq!((claims.sub, claims.jti), (device.id, made.device_token.id));
    assert_eq!(claims.organization_id.to_string(), hospital.id);
    assert_eq!(claims.tenant_id, hospital.session.organization.tenant_id);
    assert_eq!(claims.exp - claims.iat, 900, "short-lived by default");
    let seen: Vec<DeviceToken> = hospital.list(&format!("/devices/{}/tokens", device.id)).await;
    assert_eq!(seen, std::slice::from_ref(&made.device_token));
    assert_eq!(hospital.list::<DeviceToken>("/device-tokens").await, seen);
    // The terms are data.
    let terms = json!({"default_secs": 60, "max_secs": 120});
    assert_eq!(control.as_operator("PUT", "/token-terms", terms).await.status(), 200);
    let short = token(&hospital, &device, json!({})).await;
    assert_eq!(short.device_token.expires_at - short.device_token.created_at, 60);
    let path = format!("/devices/{}/tokens", device.id);
    assert_eq!(hospital.refused("POST", &path, Some(json!({"valid_secs": 121}))).await.code, "invalid");
    for body in [json!({"audience": ""}), json!({"audience": "a b"}), json!({"key": "x"}), json!({"sub": "x"})] {
        assert_eq!(hospital.refused("POST", &path, Some(body.clone())).await.code, "invalid", "{body}");
    }
    for terms in [json!({"default_secs": 60, "max_secs": 86_401}), json!({"default_secs": 121, "max_secs": 120})] {
        assert_eq!(control.as_operator("PUT", "/token-terms", terms).await.status(), 422);
    }
}

#[tokio::test]
async fn forged_expired_revoked_and_foreign_tokens_do_not_count() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    let device = application(&hospital, "portal").await;
    let made = token(&hospital, &device, json!({})).await;
    let text = made.token.0.as_str();
    assert!(ask(&hospital, text).await.active);
    let mut parts = text.split('.');
    let (header, claims, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let of = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let keys = jwks(&control).await;
    let kid = keys.keys[0].kid.clone();
    let good: DeviceClaims = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
    let stranger = JwsKey::from_seed(&[9; 32]);
    let other_claims = of(&json!({"iss": good.iss, "sub": good.sub, "aud": "gateway", "iat": good.iat,
        "exp": good.exp + 9_000, "jti": good.jti, "organization_id": good.organization_id, "tenant_id": good.tenant_id}));
    // HMAC with the public key as the secret: the mistake of verifiers that take the algorithm from the token.
    let confused = of(&json!({"alg": "HS256", "typ": "device+jwt", "kid": kid}));
    for forged in [
        format!("{}.{claims}.", of(&json!({"alg": "none", "typ": "device+jwt", "kid": kid}))),
        format!("{}.{claims}.{signature}", of(&json!({"alg": "none", "typ": "device+jwt", "kid": kid}))),
        format!("{confused}.{claims}.{}", BASE64URL_NOPAD.encode(&[7; 32])),
        format!("{header}.{other_claims}.{signature}"),
        format!("{header}.{claims}."),
        good.sign(&stranger).unwrap(),
        String::new(),
        "gws_0000".to_owned(),
        hospital.token.clone(),
    ] {
        let answer = ask(&hospital, &forged).await;
        assert!(!answer.active && answer.claims.is_none() && answer.problem.is_some(), "{forged}");
    }
    // For another audience, of another organization (and tenant), over.
    let body = json!({"token": text, "audience": "https://fhir.example"});
    assert!(!hospital.post::<Introspection>("/device-tokens/introspect", body).await.active);
    assert_eq!(ask(&lab, text).await.problem.as_deref(), Some("the token is not known here"));
    let path = format!("/device-tokens/{}", made.device_token.id);
    assert_eq!(lab.refused("DELETE", &path, None).await.code, "not_found");
    // A token is no way into the API.
    let mut as_device = hospital.detached(&control);
    as_device.token = text.to_owned();
    assert_eq!(as_device.refused("GET", "/me", None).await.code, "unauthenticated");
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(hospital.send("DELETE", &path, None).await.status(), 204, "revoking again changes nothing");
    assert_eq!(ask(&hospital, text).await.problem.as_deref(), Some("the token was revoked"));
    let second = token(&hospital, &device, json!({"valid_secs": 60})).await;
    control.clock.advance(Duration::from_secs(60));
    let answer = ask(&hospital, &second.token.0).await;
    assert!(answer.problem.unwrap().contains("not valid at this time"));
    let listed: Vec<DeviceToken> = hospital.list("/device-tokens").await;
    assert_eq!(listed.len(), 1, "the revoked one has not ended, the other one has");
    // With the device all of its tokens end.
    let third = token(&hospital, &device, json!({})).await;
    assert_eq!(hospital.send("DELETE", &format!("/devices/{}", device.id), None).await.status(), 204);
    assert!(!ask(&hospital, &third.token.0).await.active);
    let (again, path) = (Some(json!({})), format!("/devices/{}/tokens", device.id));
    assert_eq!(hospital.refused("POST", &path, again).await.code, "not_found");
}

#[tokio::test]
async fn a_bound_token_counts_with_a_fresh_proof_once() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let device = application(&hospital, "portal").await;
    let key = JwsKey::from_seed(&[5; 32]);
    let made = token(&hospital, &device, json!({"key": key.public().x()})).await;
    assert_eq!(made.device_token.key_thumbprint, Some(key.public().thumbprint()));
    let text = made.token.0.as_str();
    assert!(ask(&hospital, text).await.problem.unwrap().contains("no proof"));
    let url = "https://gateway.example/behaviors";
    let proof = |key: &JwsKey, jti: &str| {
        KeyProof::new(jti.to_owned(), "POST", url, text, control.clock.unix_secs()).sign(key).unwrap()
    };
    let shown = async |proof: String| {
        let body = json!({"token": text, "proof": {"proof": proof, "method": "POST", "url": url}});
        hospital.post::<Introspection>("/device-tokens/introspect", body).await
    };
    let good = proof(&key, "one");
    assert!(shown(good.clone()).await.active);
    assert!(shown(good).await.problem.unwrap().contains("used before"));
    assert!(!shown(proof(&JwsKey::from_seed(&[6; 32]), "two")).await.active);
    assert!(shown(proof(&key, "three")).await.active);
}

#[tokio::test]
async fn keys_rotate_with_an_overlap_and_at_once_when_one_became_known() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let device = application(&hospital, "portal").await;
    let old = token(&hospital, &device, json!({"valid_secs": 3_600})).await;
    let first = jwks(&control).await.keys;
    assert_eq!(first.len(), 1);
    let keys = rotate(&control, false).await;
    assert_eq!(keys.iter().map(|key| key.state).collect::<Vec<_>>(), [TokenKeyState::Signing, TokenKeyState::Next]);
    assert_eq!(jwks(&control).await.keys.len(), 2, "published before it signs");
    assert_eq!(control.as_operator("POST", "/token-keys/rotate", json!({})).await.status(), 409);
    let kid = |text: &str| {
        let header = BASE64URL_NOPAD.decode(text.split('.').next().unwrap().as_bytes()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    let before = token(&hospital, &device, json!({})).await;
    assert_eq!(kid(&before.token.0), first[0].kid);
    control.clock.advance(Duration::from_secs(600));
    let after = token(&hospital, &device, json!({})).await;
    assert_eq!(kid(&after.token.0), keys[1].kid);
    for made in [&old, &before, &after] {
        assert!(ask(&hospital, &made.token.0).await.active, "both keys verify");
    }
    // A day later nothing that the old key signed can count.
    control.clock.advance(Duration::from_secs(24 * 3600 + 61));
    let hospital = hospital.sign_in().await;
    assert_eq!(
        jwks(&control).await.keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(),
        [keys[1].kid.as_str()]
    );
    let made = token(&hospital, &device, json!({})).await;
    assert!(ask(&hospital, &made.token.0).await.active);
    let keys = rotate(&control, true).await;
    assert_eq!((keys.len(), keys[0].state), (1, TokenKeyState::Signing));
    assert!(!ask(&hospital, &made.token.0).await.active);
    let fresh = token(&hospital, &device, json!({})).await;
    assert!(ask(&hospital, &fresh.token.0).await.active);
    assert_eq!(hospital.refused("POST", "/token-keys/rotate", Some(json!({}))).await.status, 401);
    assert_eq!(hospital.refused("GET", "/token-keys", None).await.status, 401);
}

#[tokio::test]
async fn a_gateway_asks_about_the_tokens_of_its_own_organization() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let device = application(&pair.hospital, "portal").await;
    let made = token(&pair.hospital, &device, json!({})).await;
    let assertion = |gateway: &Gateway, path: &str| Assertion {
        method: "POST".to_owned(),
        path: path.to_owned(),
        nonce: HEXLOWER.encode(&gateway_net::random::<16>()),
        ..gateway.assertion(&control)
    };
    let asked = async |text: &str| {
        let request = control.request("POST", INTROSPECT_PATH).header("authorization", format!("Gateway {text}"));
        request.json(&json!({"token": made.token.0})).send().await.unwrap()
    };
    let own = assertion(&pair.hospital_gateway, INTROSPECT_PATH).sign(&pair.hospital_gateway.key).unwrap();
    assert!(asked(&own).await.json::<Introspection>().await.unwrap().active);
    assert_eq!(asked(&own).await.status(), 401, "an assertion is good once");
    let other = assertion(&pair.lab_gateway, INTROSPECT_PATH).sign(&pair.lab_gateway.key).unwrap();
    let answer: Introspection = asked(&other).await.json().await.unwrap();
    assert_eq!((answer.active, answer.problem.as_deref()), (false, Some("the token is not known here")));
    let unknown = Gateway::new(9);
    for bad in [
        assertion(&pair.hospital_gateway, "/api/v1/gateway/watch").sign(&pair.hospital_gateway.key).unwrap(),
        assertion(&pair.hospital_gateway, INTROSPECT_PATH).sign(&pair.lab_gateway.key).unwrap(),
        assertion(&unknown, INTROSPECT_PATH).sign(&unknown.key).unwrap(),
        String::new(),
    ] {
        assert_eq!(asked(&bad).await.status(), 401);
    }
}

#[tokio::test]
async fn every_replica_signs_and_verifies_with_the_same_keys() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let Some(replica) = control.replica().await else {
        assert!(!is_postgres());
        return;
    };
    let device = application(&hospital, "portal").await;
    let there = token(&hospital.at(&replica), &device, json!({})).await;
    assert_eq!(jwks(&control).await, jwks(&replica).await);
    // Two replicas have two addresses here, and one public URL in production: the issuer is what they say they are.
    let keys = jwks(&control).await.usable();
    let expected =
        Expected { issuer: &replica.ready.url, audience: "gateway", keys: &keys, now: control.clock.unix_secs() };
    assert!(DeviceClaims::verify(&there.token.0, &expected).is_ok());
}

#[tokio::test]
async fn with_another_storage_key_the_control_plane_does_not_start() {
    let control = Control::start().await;
    let directory = control.stop().await;
    let file = directory.path().join("data/storage-key");
    std::fs::write(&file, "ab".repeat(32)).unwrap();
    let error = Control::try_start(directory, "").await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("OtherStorageKey"), "{text}");
}
