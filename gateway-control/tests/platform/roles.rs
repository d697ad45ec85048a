use serde_json::json;

use super::harness::{Control, Org};

/// What each role may do, told by whether the answer is anything else than `forbidden`.
#[tokio::test]
async fn the_role_matrix_holds_on_the_wire() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let connection = pair.connection("Orders").await;
    let lab = &pair.lab;
    let email = |role: &str| {
        json!({"email": format!("x-{role}@lab.example"), "name": "x", "role": role,
        "password": "yet another password"})
    };
    let users: Vec<_> =
        [lab.user("admin").await, lab.user("operator").await, lab.user("viewer").await, lab.user("auditor").await]
            .into_iter()
            .collect();
    let [admin, operator, viewer, auditor] = <[Org<'_>; 4]>::try_from(users).ok().unwrap();
    let empty = || Some(json!({}));
    let all = [("owner", lab), ("admin", &admin), ("operator", &operator), ("viewer", &viewer), ("auditor", &auditor)];
    let everybody = &["owner", "admin", "operator", "viewer", "auditor"][..];
    let (managers, operators) = (&["owner", "admin"][..], &["owner", "admin", "operator"][..]);
    let nobody = gateway_proto::id::GrantId::new(1, [1; 10]);
    let cases = [
        ("GET", "/servers".to_owned(), None, everybody),
        ("GET", "/connections".to_owned(), None, everybody),
        ("GET", "/audit".to_owned(), None, &["owner", "admin", "auditor"]),
        ("PATCH", "/organization".to_owned(), empty(), managers),
        ("POST", "/servers".to_owned(), Some(json!({"name": ""})), managers),
        (
            "POST",
            "/users".to_owned(),
            Some(json!({"email": "bad", "name": "x", "role": "viewer", "password": ""})),
            managers,
        ),
        ("POST", format!("/servers/{}/enrollment-codes", pair.lab_server.id), empty(), managers),
        ("POST", "/peering-requests".to_owned(), Some(json!({"organization_id": pair.hospital.id})), managers),
        ("POST", format!("/grants/{nobody}/revoke"), empty(), managers),
        ("POST", format!("/connections/{connection}/resume"), empty(), operators),
        (
            "POST",
            "/channels".to_owned(),
            Some(json!({"server_id": pair.lab_server.id, "name": "", "engine": ""})),
            operators,
        ),
    ];
    for (method, path, body, allowed) in cases {
        for (role, user) in &all {
            let answer = user.send(method, &path, body.clone()).await;
            let forbidden = answer.status() == 403;
            assert_eq!(!forbidden, allowed.contains(role), "{role}: {method} {path}: {}", answer.status());
        }
    }
    assert_eq!(
        operator.refused("POST", &format!("/connections/{connection}/terminate"), empty()).await.code,
        "forbidden"
    );
    // Nobody gives a role above the own one, and the last owner stays.
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
