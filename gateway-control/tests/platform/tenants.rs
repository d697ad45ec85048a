//! Tenants with several organizations, and the end of an organization.

use gateway_proto::{
    api::platform::{
        CreatedSubOrganization, Device, DirectoryEntry, Link, Organization, Role, ServerShare, Session, User,
    },
    id::OrganizationId,
};
use serde_json::{Value, json};

use super::harness::{Control, Org};

/// A sub-organization, its owner signed in.
pub(crate) async fn sub<'a>(control: &'a Control, tenant: &Org<'_>, name: &str) -> Org<'a> {
    let body =
        json!({"name": name, "owner_email": format!("owner@{}.example", name.to_lowercase()), "owner_name": "O"});
    let created: CreatedSubOrganization = tenant.post("/tenant/organizations", body).await;
    let body = json!({"code": created.invitation.code.0, "password": "correct horse battery"});
    let answer = control.request("POST", "/api/v1/invitations/accept").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{:?}", answer.text().await);
    let session: Session = answer.json().await.unwrap();
    assert_eq!((session.user.role, session.organization.id), (Role::Owner, created.organization.id));
    Org { control, token: session.token.0.clone(), id: session.organization.id.to_string(), session }
}

#[tokio::test]
async fn a_tenant_has_subsidiaries_with_devices_of_their_own_linked_to_one_of_the_platform() {
    let control = Control::start().await;
    let tenant = control.organization("Holding").await;
    let body = json!({"kind": "fhir_endpoint", "name": "FHIR", "behaviors": ["fhir-query"]});
    let request = control.request("POST", "/api/v1/system-devices");
    let request = request.header("authorization", format!("Operator {}", control.operator)).json(&body);
    let system: Device = request.send().await.unwrap().json().await.unwrap();
    for name in ["North", "South", "West"] {
        let org = sub(&control, &tenant, name).await;
        assert_eq!(org.session.organization.tenant_id, tenant.session.organization.tenant_id);
        let device: Device = org.list::<Device>("/devices").await.remove(0);
        let link = json!({"source_device_id": device.id, "target_device_id": system.id});
        let _: Link = org.post("/links", link).await;
        let token: Value = org.post(&format!("/devices/{}/tokens", device.id), json!({})).await;
        let answer: Value = org.post("/device-tokens/introspect", json!({"token": token["token"]})).await;
        assert_eq!(answer["claims"]["organization_id"], org.id.as_str());
        assert_eq!(answer["claims"]["tenant_id"], json!(tenant.session.organization.tenant_id));
        assert_eq!(answer["linked"][0]["id"], json!(system.id));
    }
    let names: Vec<_> = tenant.list::<Organization>("/tenant/organizations").await;
    assert_eq!(names.len(), 4, "the own one included");
    let usage: Value = tenant.get("/organization/usage").await;
    assert_eq!(usage["tier"]["name"], "enterprise");
}

#[tokio::test]
async fn only_the_tenant_itself_administers_and_only_its_own() {
    let control = Control::start().await;
    let (tenant, other) = (control.organization("Holding").await, control.organization("Other").await);
    let north = sub(&control, &tenant, "North").await;
    let south = sub(&control, &tenant, "South").await;
    let invitation = || Some(json!({"email": "x@y.example", "name": "x", "role": "admin"}));
    let new = || Some(json!({"name": "X", "owner_email": "x@y.example", "owner_name": "x"}));
    // A sub-organization administers nobody, not even itself or its sister.
    assert_eq!(north.refused("GET", "/tenant/organizations", None).await.code, "forbidden");
    assert_eq!(north.refused("POST", "/tenant/organizations", new()).await.code, "forbidden");
    for id in [&south.id, &north.id, &tenant.id] {
        let path = format!("/tenant/organizations/{id}");
        assert_eq!(north.refused("DELETE", &path, None).await.code, "forbidden");
        assert_eq!(north.refused("POST", &format!("{path}/invitations"), invitation()).await.code, "forbidden");
    }
    // Another tenant sees none of them.
    for id in [&north.id, &tenant.id, &OrganizationId::new(1, [1; 10]).to_string()] {
        let path = format!("/tenant/organizations/{id}");
        for (method, path, body) in [
            ("GET", path.clone(), None),
            ("DELETE", path.clone(), None),
            ("POST", format!("{path}/invitations"), invitation()),
        ] {
            assert_eq!(other.refused(method, &path, body).await.code, "not_found", "{method} {path}");
        }
    }
    // The tenant itself sees what they are called, and not what they have.
    let server = north.server("main").await;
    assert_eq!(tenant.refused("GET", &format!("/servers/{}", server.id), None).await.code, "not_found");
    assert!(tenant.list::<Value>("/servers").await.is_empty());
    let users: Vec<User> = north.list("/users").await;
    assert_eq!(tenant.refused("DELETE", &format!("/users/{}", users[0].id), None).await.code, "not_found");
    // Its viewers look, its tokens invite nobody.
    let viewer = tenant.user("viewer").await;
    assert_eq!(viewer.list::<Organization>("/tenant/organizations").await.len(), 3);
    assert_eq!(viewer.refused("POST", "/tenant/organizations", new()).await.code, "forbidden");
    let token: Value = tenant.post("/api-tokens", json!({"name": "x", "scopes": ["read", "tenant"]})).await;
    let mut automation = tenant.detached(&control);
    automation.token = token["token"].as_str().unwrap().to_owned();
    assert_eq!(automation.refused("POST", "/tenant/organizations", new()).await.code, "forbidden");
    // The other organizations of the platform keep their names.
    let body = json!({"name": "other", "owner_email": "x@y.example", "owner_name": "x"});
    assert_eq!(tenant.refused("POST", "/tenant/organizations", Some(body)).await.code, "conflict");
}

#[tokio::test]
async fn an_invitation_of_the_tenant_counts_as_long_as_its_inviter_may_invite() {
    let control = Control::start().await;
    let tenant = control.organization("Holding").await;
    let north = sub(&control, &tenant, "North").await;
    let admin = tenant.user("admin").await;
    let path = format!("/tenant/organizations/{}/invitations", north.id);
    let body = json!({"email": "new@north.example", "name": "New", "role": "owner"});
    let created: Value = admin.post(&path, body).await;
    let waiting: Vec<Value> = north.list("/invitations").await;
    assert_eq!(waiting[0]["email"], "new@north.example", "the organization sees who was invited");
    assert_eq!(tenant.send("DELETE", &format!("/users/{}", admin.session.user.id), None).await.status(), 204);
    let accept = json!({"code": created["code"], "password": "correct horse battery"});
    let answer = control.request("POST", "/api/v1/invitations/accept").json(&accept).send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn into_the_own_organization_the_tenant_invites_like_everybody_else() {
    let control = Control::start().await;
    let tenant = control.organization("Holding").await;
    let (admin, north) = (tenant.user("admin").await, sub(&control, &tenant, "North").await);
    let body = |role: &str| json!({"email": format!("{role}@new.example"), "name": "New", "role": role});
    let path = |id: &str| format!("/tenant/organizations/{id}/invitations");
    assert_eq!(admin.refused("POST", &path(&tenant.id), Some(body("owner"))).await.code, "forbidden");
    let _: Value = admin.post(&path(&tenant.id), body("admin")).await;
    let _: Value = tenant.post(&path(&tenant.id), body("owner")).await;
    // The others get their owners from it.
    let _: Value = admin.post(&path(&north.id), body("owner")).await;
}

#[tokio::test]
async fn an_organization_ends_with_everything_it_had_in_one_step() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let (hospital, lab) = (&pair.hospital, &pair.lab);
    let (orders, _) = (pair.connection("Orders").await, pair.connection("Results").await);
    let share = json!({"agreement_id": pair.agreement, "server_id": pair.hospital_server.id, "level": "metrics"});
    let share: ServerShare = hospital.post("/server-shares", share).await;
    let third = control.organization("Third").await;
    for (from, to) in [(&third, lab), (lab, &third)] {
        // Only one of the two can wait; the other is refused.
        let _ = from.send("POST", "/peering-requests", Some(json!({"organization_id": to.id}))).await;
    }
    let target = json!({"kind": "fhir_endpoint", "name": "fhir", "linkable_by": "partners"});
    let target: Device = lab.post("/devices", target).await;
    let source: Device = hospital.list::<Device>("/devices").await.remove(0);
    let _: Link = hospital.post("/links", json!({"source_device_id": source.id, "target_device_id": target.id})).await;
    let mut watch = pair.hospital_gateway.watch(&control).await;
    watch.policy_until(|policy| policy.connections.len() == 2).await;
    let mut removed = pair.lab_gateway.watch(&control).await;
    removed.policy().await;
    let admin = lab.user("admin").await;
    assert_eq!(admin.refused("DELETE", "/organization", None).await.code, "forbidden");
    assert_eq!(lab.send("DELETE", "/organization", None).await.status(), 204);
    // People, gateways, names: nothing gets in any more.
    for user in [lab, &admin] {
        assert_eq!(user.refused("GET", "/me", None).await.code, "unauthenticated");
    }
    let login = json!({"email": "owner@lab.example", "password": "correct horse battery"});
    assert_eq!(control.request("POST", "/api/v1/sessions").json(&login).send().await.unwrap().status(), 401);
    watch.policy_until(|policy| policy.connections.is_empty() && policy.peers.is_empty()).await;
    while removed.event().await.is_some() {}
    // The partner sees that it is over, and finds every consequence in its log.
    assert_eq!(hospital.connection(&orders).await.status.as_str(), "terminated");
    assert_eq!(hospital.agreement(&pair.agreement).await.status.as_str(), "ended");
    assert!(hospital.get::<ServerShare>(&format!("/server-shares/{}", share.id)).await.ended_at.is_some());
    assert!(hospital.list::<Link>("/links").await.is_empty());
    let log: Vec<Value> = hospital.list("/audit").await;
    for act in ["agreement.end", "grant.close", "connection.terminate", "share.end", "link.delete"] {
        assert!(log.iter().any(|entry| entry["act"] == act), "{act} is missing");
    }
    let requests: Vec<Value> = third.list("/peering-requests").await;
    assert_eq!(requests[0]["status"], "declined");
    let found: Vec<DirectoryEntry> = hospital.list("/directory").await;
    assert!(found.iter().all(|entry| entry.name != "Lab"));
    let body = json!({"organization_id": lab.id});
    assert_eq!(hospital.refused("POST", "/peering-requests", Some(body)).await.code, "not_found");
    // The name is free again.
    control.organization("Lab").await;
}

#[tokio::test]
async fn the_tenant_itself_ends_last() {
    let control = Control::start().await;
    let tenant = control.organization("Holding").await;
    let north = sub(&control, &tenant, "North").await;
    let south = sub(&control, &tenant, "South").await;
    assert_eq!(tenant.refused("DELETE", "/organization", None).await.code, "conflict");
    let path = format!("/tenant/organizations/{}", tenant.id);
    assert_eq!(tenant.refused("DELETE", &path, None).await.code, "conflict");
    let path = format!("/tenant/organizations/{}", north.id);
    assert_eq!(tenant.send("DELETE", &path, None).await.status(), 204);
    assert_eq!(tenant.refused("DELETE", &path, None).await.code, "not_found");
    assert_eq!(north.refused("GET", "/me", None).await.code, "unauthenticated");
    // A sub-organization may leave by itself.
    assert_eq!(south.send("DELETE", "/organization", None).await.status(), 204);
    assert_eq!(tenant.list::<Organization>("/tenant/organizations").await.len(), 1);
    assert_eq!(tenant.send("DELETE", "/organization", None).await.status(), 204);
}
