use std::time::Duration;

use futures_util::future::join_all;
use gateway_proto::api::Problem;
use serde_json::{Value, json};

use super::harness::Control;

#[tokio::test]
async fn every_error_is_a_problem_with_a_stable_code_and_a_request_id() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let call = |method: &str, path: &str| control.request(method, path).bearer_auth(&hospital.token);
    let big = "x".repeat((1 << 20) + 1);
    let cases = [
        (call("GET", "/nowhere"), 404, "not_found"),
        (call("GET", "/api/v1/nowhere"), 404, "not_found"),
        (call("PUT", "/api/v1/servers"), 405, "invalid"),
        (call("POST", "/api/v1/servers").header("content-type", "application/json").body("{"), 422, "invalid"),
        (call("POST", "/api/v1/servers").body("name=x"), 422, "invalid"),
        (call("POST", "/api/v1/servers").json(&json!({"name": "x", "nmae": "y"})), 422, "invalid"),
        (call("POST", "/api/v1/servers").json(&json!({"name": big})), 413, "invalid"),
        (control.request("GET", "/api/v1/me"), 401, "unauthenticated"),
        (control.request("GET", "/api/v1/me").bearer_auth("gws_wrong"), 401, "unauthenticated"),
        (control.request("GET", "/api/v1/gateway/watch"), 400, "invalid"),
        (call("POST", "/api/v1/relays").json(&json!({})), 401, "unauthenticated"),
    ];
    for (request, status, code) in cases {
        let answer = request.send().await.unwrap();
        let what = answer.url().path().to_owned();
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{what}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(answer.headers().contains_key("content-security-policy"));
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(answer.status(), status, "{what}");
        let problem: Problem = answer.json().await.unwrap();
        assert_eq!((problem.code.as_str(), problem.status, problem.request_id), (code, status, Some(id)), "{what}");
    }
}

#[tokio::test]
async fn the_registration_token_creates_organizations_and_nothing_else() {
    let control = Control::start().await;
    let token = std::fs::read_to_string(&control.ready.registration_token_file).unwrap().trim().to_owned();
    assert_ne!(token, control.operator);
    let body = |token: &str| {
        json!({
            "name": "Hospital", "owner_email": "o@h.example", "owner_name": "O",
            "owner_password": "correct horse battery", "registration_token": token,
        })
    };
    let create = async |token: &str| {
        control.request("POST", "/api/v1/organizations").json(&body(token)).send().await.unwrap().status().as_u16()
    };
    assert_eq!((create("gwr_wrong").await, create(&token).await), (403, 201));
    let list = control.request("GET", "/api/v1/organizations").header("authorization", format!("Operator {token}"));
    assert_eq!(list.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn sign_in_is_slowed_down_and_tells_nothing_about_accounts() {
    let control = Control::start_with("[limits]\nlogins_per_minute = 3\n").await;
    let hospital = control.organization("Hospital").await;
    let login = async |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        let answer = control.request("POST", "/api/v1/sessions").json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("retry-after"), answer.json::<Value>().await.unwrap())
    };
    let owner = hospital.session.user.email.clone();
    let (wrong, unknown) = (login(&owner, "wrong").await, login("nobody@x.example", "wrong").await);
    assert_eq!((wrong.0, &wrong.2["detail"]), (401, &unknown.2["detail"]));
    assert_eq!(login(&owner.to_uppercase(), "correct horse battery").await.0, 201);
    assert_eq!(login(&owner, "wrong").await.0, 401);
    let limited = login(&owner, "correct horse battery").await;
    assert_eq!((limited.0, limited.1, limited.2["code"].as_str()), (429, true, Some("rate_limited")));
}

#[tokio::test]
async fn a_session_ends_by_itself_and_by_signing_out() {
    let control = Control::start().await;
    let (hospital, lab) = (control.organization("Hospital").await, control.organization("Lab").await);
    assert_eq!(hospital.send("DELETE", "/sessions/current", None).await.status(), 204);
    assert_eq!(hospital.refused("GET", "/me", None).await.code, "unauthenticated");
    assert_eq!(lab.send("GET", "/me", None).await.status(), 200);
    control.clock.advance(Duration::from_secs(12 * 3600));
    assert_eq!(lab.refused("GET", "/me", None).await.code, "unauthenticated");
}

#[tokio::test]
async fn registration_follows_its_switch() {
    for (switch, status) in [("token", 403), ("closed", 403), ("open", 201)] {
        let control = Control::start_with(&format!("registration = '{switch}'\n")).await;
        let body = json!({"name": "X", "owner_email": "o@x.example", "owner_name": "O",
            "owner_password": "correct horse battery"});
        let answer = control.request("POST", "/api/v1/organizations").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{switch}");
    }
}

#[tokio::test]
async fn requests_of_one_user_are_limited() {
    let control = Control::start_with("[limits]\nrequests_per_second = 1\n").await;
    let hospital = control.organization("Hospital").await;
    // At the same time: one after the other, a busy machine would be slow enough to stay within the rate.
    let answers = join_all((0..20).map(|_| hospital.send("GET", "/me", None))).await;
    assert!(answers.iter().any(|answer| answer.status() == 429));
}

#[tokio::test]
async fn the_openapi_document_describes_every_route_and_health_tells_the_truth() {
    let control = Control::start_with("metrics_listen = '127.0.0.1:0'\n").await;
    let document: Value = control.request("GET", "/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    for path in ["/api/v1/organizations", "/api/v1/grants/{id}/approve", "/api/v1/connections/{id}/{act}"] {
        assert!(paths.contains_key(path), "{path} is missing");
    }
    for reference in serde_json::to_string(&document).unwrap().split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "the schema {name} is missing");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(control.request("GET", path).send().await.unwrap().status(), 200);
    }
    assert_eq!(control.request("GET", "/metrics").send().await.unwrap().status(), 404);
    let mut stream = tokio::net::TcpStream::connect(control.ready.metrics_listen.unwrap()).await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
    assert!(text.contains("gateway_control_http_requests_total"), "{text}");
}
