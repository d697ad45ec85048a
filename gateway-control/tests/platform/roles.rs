//! Roles: who gives them, and what ends with them.

use gateway_proto::api::platform::{
    ApiToken, AuditEntry, CreatedDeviceToken, Device, Introspection, Invitation, OpenEnrollmentCode, Role, User,
};
use serde_json::{Value, json};

use super::harness::{Control, Gateway, Org};

async fn is_active(org: &Org<'_>, token: &CreatedDeviceToken) -> bool {
    org.post::<Introspection>("/device-tokens/introspect", json!({"token": token.token.0})).await.active
}

/// A token of the device that the organization is, asked for by this user.
async fn device_token(user: &Org<'_>) -> CreatedDeviceToken {
    let device = user.list::<Device>("/devices").await.remove(0);
    user.post(&format!("/devices/{}/tokens", device.id), json!({"valid_secs": 3600})).await
}

fn path_of(user: &Org<'_>) -> String {
    format!("/users/{}", user.session.user.id)
}

#[tokio::test]
async fn owners_are_made_and_removed_by_owners_and_the_last_one_stays() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    let lab = &pair.lab;
    let email = |role: &str| {
        json!({"email": format!("x-{role}@lab.example"), "name": "x", "role": role,
        "password": "yet another password"})
    };
    let (admin, operator, viewer) = (lab.user("admin").await, lab.user("operator").await, lab.user("viewer").await);
    assert_eq!(admin.refused("POST", "/users", Some(email("owner"))).await.code, "forbidden");
    let owner = format!("/users/{}", lab.session.user.id);
    assert_eq!(admin.refused("DELETE", &owner, None).await.code, "forbidden");
    assert_eq!(lab.refused("DELETE", &owner, None).await.code, "conflict");
    // A removed user is signed out at once.
    let path = format!("/users/{}", viewer.session.user.id);
    assert_eq!(admin.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(viewer.refused("GET", "/me", None).await.code, "unauthenticated");
    // An operator may remove a channel, but not one that partners were granted.
    let channels: Vec<gateway_proto::api::platform::Channel> = lab.list("/channels").await;
    let path = format!("/channels/{}", channels[0].id);
    assert_eq!(operator.refused("DELETE", &path, None).await.code, "forbidden");
}

#[tokio::test]
async fn a_role_is_given_by_who_manages_both_and_the_last_owner_stays_one() {
    let control = Control::start().await;
    let lab = control.organization("Lab").await;
    let (admin, operator, viewer) = (lab.user("admin").await, lab.user("operator").await, lab.user("viewer").await);
    let role = |role: &str| Some(json!({"role": role}));
    assert_eq!(operator.refused("PATCH", &path_of(&viewer), role("auditor")).await.code, "forbidden");
    assert_eq!(viewer.refused("PATCH", &path_of(&viewer), role("admin")).await.code, "forbidden", "not oneself");
    assert_eq!(admin.refused("PATCH", &path_of(&admin), role("owner")).await.code, "forbidden", "not oneself");
    assert_eq!(admin.refused("PATCH", &path_of(&viewer), role("owner")).await.code, "forbidden");
    assert_eq!(admin.refused("PATCH", &path_of(&lab), role("viewer")).await.code, "forbidden");
    assert_eq!(lab.refused("PATCH", &path_of(&lab), role("admin")).await.code, "conflict", "the last owner");
    assert_eq!(lab.refused("PATCH", &path_of(&viewer), role("king")).await.code, "invalid");
    assert_eq!(lab.refused("PATCH", &path_of(&viewer), Some(json!({"name": "x"}))).await.code, "invalid");
    // A token lifts nobody: whom it lifted would be bound by none of its scopes.
    let token: Value = lab.post("/api-tokens", json!({"name": "x", "scopes": ["read", "user"]})).await;
    let mut automation = lab.detached(&control);
    automation.token = token["token"].as_str().unwrap().to_owned();
    assert_eq!(automation.refused("PATCH", &path_of(&viewer), role("admin")).await.code, "forbidden");
    let shown: User = lab.get(&path_of(&viewer)).await;
    assert_eq!(shown.role, Role::Viewer);

    // On the condition that it is still what was seen; and again, without change.
    let tag = lab.send("GET", &path_of(&viewer), None).await.headers()["etag"].clone();
    let patch = async |role: &str| {
        let request = control.request("PATCH", &format!("/api/v1{}", path_of(&viewer))).bearer_auth(&admin.token);
        let answer = request.header("if-match", tag.clone()).json(&json!({"role": role})).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!((patch("operator").await, patch("auditor").await), (200, 412));
    assert_eq!(viewer.send("PATCH", &path_of(&operator), role("viewer")).await.status(), 403);
    let again: User = lab.send("PATCH", &path_of(&viewer), role("operator")).await.json().await.unwrap();
    assert_eq!(again.role, Role::Operator);
    let log: Vec<AuditEntry> = lab.list("/audit?act=user.update").await;
    assert_eq!(log.iter().map(|entry| entry.detail.as_str()).collect::<Vec<_>>(), ["role: viewer → operator"]);
    // With another owner an owner may step down.
    assert_eq!(lab.send("PATCH", &path_of(&admin), role("owner")).await.status(), 200);
    assert_eq!(lab.send("PATCH", &path_of(&lab), role("viewer")).await.status(), 200);
    assert_eq!(lab.refused("POST", "/servers", Some(json!({"name": "x"}))).await.code, "forbidden");
    assert_eq!(admin.refused("PATCH", &path_of(&admin), role("admin")).await.code, "conflict", "the last owner now");
}

#[tokio::test]
async fn with_a_role_goes_what_the_lesser_one_may_not_keep() {
    let control = Control::start().await;
    let lab = control.organization("Lab").await;
    let (admin, server) = (lab.user("admin").await, lab.server("lis").await);
    let code = admin.code(&server).await;
    let token = device_token(&admin).await;
    for scope in ["server", "connection"] {
        let _: Value = admin.post("/api-tokens", json!({"name": scope, "scopes": ["read", scope]})).await;
    }
    let invitation = json!({"email": "new@lab.example", "name": "New", "role": "viewer"});
    let _: Value = admin.post("/invitations", invitation).await;
    let change = async |role: &str| {
        assert_eq!(lab.send("PATCH", &path_of(&admin), Some(json!({"role": role}))).await.status(), 200);
    };
    change("operator").await;
    assert_eq!(Gateway::new(1).enroll(&control, &code.secret).await.unwrap_err().code, "enrollment_code");
    assert!(lab.list::<Invitation>("/invitations").await.is_empty());
    let left: Vec<ApiToken> = lab.list("/api-tokens").await;
    assert_eq!(left.iter().map(|token| token.scopes.join(" ")).collect::<Vec<_>>(), ["connection read"]);
    assert!(is_active(&lab, &token).await, "an operator makes tokens of devices");
    change("viewer").await;
    assert!(!is_active(&lab, &token).await);
    let log: Vec<AuditEntry> = lab.list("/audit?act=user.update").await;
    let details: Vec<_> = log.iter().map(|entry| entry.detail.as_str()).collect();
    assert_eq!(details, ["role: operator → viewer; device tokens revoked: 1", "role: admin → operator"]);
    let log: Vec<AuditEntry> = lab.list("/audit?act=enrollment_code.delete").await;
    assert!(log.len() == 1 && log[0].detail.ends_with(&format!("made by {}", admin.session.user.email)), "{log:?}");
    // Nothing of it comes back with the role.
    change("admin").await;
    assert_eq!(Gateway::new(1).enroll(&control, &code.secret).await.unwrap_err().code, "enrollment_code");
    assert!(!is_active(&lab, &token).await);
}

#[tokio::test]
async fn what_a_removed_user_made_lets_nobody_in() {
    let control = Control::start().await;
    let lab = control.organization("Lab").await;
    let (one, other) = (lab.server("one").await, lab.server("other").await);
    let admin = lab.user("admin").await;
    let (theirs, ours) = (admin.code(&one).await, lab.code(&other).await);
    let (token, own) = (device_token(&admin).await, device_token(&lab).await);
    // A code that was used is its gateway's, whoever made it.
    let third = lab.server("third").await;
    let (used, gateway) = (admin.code(&third).await, Gateway::new(3));
    gateway.enroll(&control, &used.secret).await.unwrap();
    assert_eq!(lab.send("DELETE", &path_of(&admin), None).await.status(), 204);
    assert_eq!(Gateway::new(1).enroll(&control, &theirs.secret).await.unwrap_err().code, "enrollment_code");
    for (server, count) in [(&one, 0), (&other, 1)] {
        let path = format!("/servers/{}/enrollment-codes", server.id);
        assert_eq!(lab.list::<OpenEnrollmentCode>(&path).await.len(), count);
    }
    gateway.enroll(&control, &used.secret).await.unwrap();
    Gateway::new(2).enroll(&control, &ours.secret).await.unwrap();
    assert!(!is_active(&lab, &token).await);
    assert!(is_active(&lab, &own).await, "what others asked for is theirs");
    let log: Vec<AuditEntry> = lab.list("/audit?act=user.delete").await;
    assert_eq!(log[0].detail, "admin@lab.example; device tokens revoked: 1");
}
