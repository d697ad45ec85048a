//! A database from before devices, tenants and second factors is brought up to date with everything in it.

use gateway_proto::{
    api::platform::{Behavior, CreatedDeviceToken, Device, DeviceKind, Organization, Server},
    id::DeviceId,
};
use serde_json::{Value, json};

use super::{database, harness::Control};

/// Takes back what the migrations 11 to 14 and 33 did, as far as a schema can tell.
const BACK: &[&str] = &[
    "DROP TABLE recovery_codes",
    "DROP TABLE user_totp",
    "DROP TABLE executions",
    "DROP TABLE links",
    "DROP TABLE tenants",
    "DROP INDEX organizations_of_tenant",
    "ALTER TABLE organizations DROP COLUMN removed_at",
    "DROP TABLE device_tokens",
    "DROP TABLE token_keys",
    "DROP TABLE token_terms",
    "DROP TABLE devices",
    "DROP TABLE behaviors",
    "UPDATE channels SET behavior = 'astm'",
    "UPDATE users SET email = address",
    "DROP INDEX users_by_address",
    "ALTER TABLE users DROP COLUMN address",
    "DELETE FROM _sqlx_migrations WHERE version BETWEEN 11 AND 14 OR version = 33",
];

#[tokio::test]
async fn what_was_there_gets_its_devices_its_tenants_and_its_behaviors() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let connection = pair.connection("Orders").await;
    let removed = pair.lab.server("removed").await;
    assert_eq!(pair.lab.send("DELETE", &format!("/servers/{}", removed.id), None).await.status(), 204);
    let (hospital, lab) = (pair.hospital.token.clone(), pair.lab.token.clone());
    let servers: Vec<Server> = pair.lab.list("/servers").await;
    drop(pair);
    let directory = control.stop().await;
    database::execute(directory.path(), BACK);
    let control = Control::start_in(directory, "").await;
    let get = async |token: &str, path: &str| -> Value {
        let answer = control.request("GET", &format!("/api/v1{path}")).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}: {:?}", answer.text().await);
        answer.json().await.unwrap()
    };
    let devices: Vec<Device> = serde_json::from_value(get(&lab, "/devices").await["items"].take()).unwrap();
    assert_eq!(devices.len(), 2, "{devices:?}");
    let server = devices.iter().find(|device| device.kind == DeviceKind::Server).unwrap();
    assert_eq!((server.server_id, server.name.as_str()), (Some(servers[0].id), "lis"));
    assert_eq!(server.id, DeviceId::from_bytes(servers[0].id.to_bytes()));
    let organizations: Value = get(&hospital, "/tenant/organizations").await;
    let organizations: Vec<Organization> = serde_json::from_value(organizations["items"].clone()).unwrap();
    assert_eq!(organizations.len(), 1, "each is the tenant itself");
    let behaviors: Vec<Behavior> = serde_json::from_value(get(&lab, "/behaviors").await["items"].take()).unwrap();
    assert!(behaviors.iter().any(|behavior| behavior.name == "astm"), "what a channel named is known");
    assert_eq!(get(&lab, &format!("/connections/{connection}")).await["behavior"], "astm");
    let login = json!({"email": "owner@lab.example", "password": "correct horse battery"});
    let session = control.request("POST", "/api/v1/sessions").json(&login).send().await.unwrap();
    assert_eq!(session.json::<Value>().await.unwrap()["organization"]["name"], "Lab", "addresses are kept");
    let path = format!("/api/v1/devices/{}/tokens", server.id);
    let made = control.request("POST", &path).bearer_auth(&lab).json(&json!({})).send().await.unwrap();
    assert_eq!(made.json::<CreatedDeviceToken>().await.unwrap().device_token.device_id, server.id);
}
