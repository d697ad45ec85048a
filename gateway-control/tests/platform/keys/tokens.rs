//! Rotation of the tokens of the platform.

use std::time::Duration;

use gateway_proto::api::platform::RotatedPlatformToken;
use serde_json::{Value, json};

use super::super::harness::Control;

async fn operator(control: &Control, token: &str, method: &str, path: &str, body: Value) -> reqwest::Response {
    let request = control.request(method, &format!("/api/v1{path}"));
    request.header("authorization", format!("Operator {token}")).json(&body).send().await.unwrap()
}

#[tokio::test]
async fn a_token_of_the_platform_is_replaced_with_an_overlap_or_at_once() {
    let control = Control::start().await;
    let rotate = async |with: &str, kind: &str, overlap: u64| {
        let path = format!("/platform-tokens/{kind}/rotate");
        let answer = operator(&control, with, "POST", &path, json!({"overlap_secs": overlap})).await;
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        answer.json::<RotatedPlatformToken>().await.unwrap().token.0.clone()
    };
    let status =
        async |token: &str| operator(&control, token, "GET", "/policy-keys", json!({})).await.status().as_u16();
    let first = rotate(&control.operator, "operator", 3600).await;
    assert_eq!((status(&first).await, status(&control.operator).await), (200, 200));
    control.clock.advance(Duration::from_secs(3600));
    assert_eq!((status(&first).await, status(&control.operator).await), (200, 401));
    let second = rotate(&first, "operator", 0).await;
    assert_eq!((status(&second).await, status(&first).await), (200, 401));

    let found = async |token: &str, name: &str| {
        let body = json!({
            "name": name, "owner_email": "owner@x.example", "owner_name": "Owner",
            "owner_password": "correct horse battery", "registration_token": token,
        });
        control.request("POST", "/api/v1/organizations").json(&body).send().await.unwrap().status().as_u16()
    };
    let file = std::fs::read_to_string(&control.ready.registration_token_file).unwrap().trim().to_owned();
    assert_eq!(found(&file, "One").await, 201);
    let fresh = rotate(&second, "registration", 0).await;
    assert_eq!((found(&file, "Two").await, found(&fresh, "Two").await), (403, 201));
    assert_eq!(status(&fresh).await, 401, "each is for its purpose");

    // Whoever lost the newest one writes another one into the file.
    let file = control.ready.operator_token_file.clone();
    let directory = control.stop().await;
    std::fs::write(&file, format!("gwo_{}\n", "5a".repeat(32))).unwrap();
    let control = Control::start_in(directory, "").await;
    let lists = control.as_operator("GET", "/policy-keys", json!({})).await;
    assert_eq!(lists.status(), 200);
}
