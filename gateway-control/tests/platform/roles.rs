use serde_json::json;

use super::harness::Control;

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
