//! A database from before devices, tenants and second factors is brought up to date with everything in it.

use gateway_proto::{
    api::{
        Page,
        platform::{Behavior, CreatedDeviceToken, Device, DeviceKind, Organization, PolicyKey, Server},
    },
    id::DeviceId,
    policy::{Activation, LocalEnd, Policy},
};
use serde_json::{Value, json};

use super::{
    database,
    harness::{Control, Gateway, Org, until},
};

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

/// Takes back what migration 44 did.
const BACK_TO_43: &[&str] = &[
    "DROP INDEX enrollment_codes_by_id",
    "DROP INDEX enrollment_codes_of_issuer",
    "ALTER TABLE enrollment_codes DROP COLUMN id",
    "ALTER TABLE enrollment_codes DROP COLUMN issued_by",
    "ALTER TABLE peering_requests DROP COLUMN from_kept_name",
    "ALTER TABLE peering_requests DROP COLUMN to_kept_name",
    "ALTER TABLE agreements DROP COLUMN first_kept_name",
    "ALTER TABLE agreements DROP COLUMN second_kept_name",
    "ALTER TABLE grants DROP COLUMN kept_endpoint",
    "DROP INDEX grants_of_sender",
    "DELETE FROM _sqlx_migrations WHERE version = 44",
];

#[tokio::test]
async fn codes_and_ends_of_before_are_listed_and_keep_the_names_they_have() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let connection = pair.connection("Orders").await;
    let server = pair.lab.server("next").await;
    let code = pair.lab.code(&server).await;
    let _: Value = pair.lab.post(&format!("/agreements/{}/end", pair.agreement), json!({})).await;
    let (hospital, lab, agreement) = (pair.hospital.token.clone(), pair.lab.token.clone(), pair.agreement.clone());
    drop(pair);
    let directory = control.stop().await;
    database::execute(directory.path(), BACK_TO_43);
    let control = Control::start_in(directory, "").await;
    let ask = async |method: &str, token: &str, path: &str, body: Option<Value>| -> Value {
        let request = control.request(method, &format!("/api/v1{path}")).bearer_auth(token);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}: {:?}", answer.text().await);
        answer.json().await.unwrap()
    };
    let codes = ask("GET", &lab, &format!("/servers/{}/enrollment-codes", server.id), None).await;
    assert_eq!((codes["items"].as_array().unwrap().len(), &codes["items"][0]["issued_by"]), (1, &Value::Null));
    Gateway::new(7).enroll(&control, &code.secret).await.unwrap();
    let _ = ask("PATCH", &lab, "/organization", Some(json!({"name": "Hush"}))).await;
    let channels = ask("GET", &lab, "/channels", None).await;
    let channel = format!("/channels/{}", channels["items"][0]["id"].as_str().unwrap());
    let _ = ask("PATCH", &lab, &channel, Some(json!({"public_name": "Hush"}))).await;
    assert_eq!(ask("GET", &hospital, &format!("/agreements/{agreement}"), None).await["peer_name"], "Lab");
    let shown = ask("GET", &hospital, &format!("/connections/{connection}"), None).await;
    assert_eq!((&shown["endpoint"], &shown["listener"]["organization_name"]), (&json!("Orders"), &json!("Lab")));
}

/// Takes back what the migrations 49 to 52 did, with a channel that follows its engine, as versions of then had it.
const BACK_TO_47: &[&str] = &[
    "DROP INDEX grants_open_of_owner",
    "DROP INDEX reports_of_connection",
    "ALTER TABLE policies DROP COLUMN keys_since",
    "DROP INDEX connections_listener_provisioning",
    "DROP INDEX connections_sender_provisioning",
    "ALTER TABLE servers DROP COLUMN policy_floor",
    "INSERT INTO engine_links (channel_id, server_id, engine_channel, state)
     SELECT id, server_id, 'a', 'started' FROM channels",
    "DELETE FROM _sqlx_migrations WHERE version BETWEEN 49 AND 52",
];

#[tokio::test]
async fn policies_of_before_know_who_has_confirmed_them_and_those_that_follow_an_engine_are_compiled_again() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    // This one never comes: it does not know the keys of now.
    let quiet = pair.lab.server("quiet").await;
    pair.lab.enroll(&quiet, &Gateway::new(3)).await;
    let (mut hospital, mut lab) = pair.watches().await;
    let is_active = |policy: &Policy| policy.connections.iter().any(|entry| entry.activation == Activation::Active);
    let newest = tokio::join!(hospital.policy_until(is_active), lab.policy_until(is_active));
    let confirmed = async |org: &Org<'_>, server: &Server, newest: &Policy| {
        let server: Server = org.get(&format!("/servers/{}", server.id)).await;
        server.applied_revision >= newest.revision
    };
    until("the policies were never confirmed", async || {
        confirmed(&pair.hospital, &pair.hospital_server, &newest.0).await
            && confirmed(&pair.lab, &pair.lab_server, &newest.1).await
    })
    .await;
    let (store, before) = (lab.store.clone(), newest.1.revision);
    drop((hospital, lab));
    let gateway = pair.lab_gateway;
    let directory = control.stop().await;
    database::execute(directory.path(), BACK_TO_47);
    let control = Control::start_in(directory, "").await;
    let mut lab = gateway.watch_from(&control, before).await;
    lab.store = store;
    let of_engine = |policy: &Policy| {
        let local = &policy.connections[0].local;
        matches!(local, LocalEnd::Listener { engine_channel, .. } if engine_channel.as_deref() == Some("a"))
    };
    assert!(lab.policy_until(of_engine).await.revision > before);
    let counted = async || {
        let answer = control.as_operator("GET", "/policy-keys", json!({})).await;
        answer.json::<Page<PolicyKey>>().await.unwrap().items[0].gateways_behind == Some(1)
    };
    until("gateways behind were not counted right: the quiet one only", counted).await;
}

/// Takes back what migration 55 did.
const BACK_TO_54: &[&str] = &[
    "ALTER TABLE sessions DROP COLUMN issuer",
    "ALTER TABLE sessions DROP COLUMN id_token",
    "DELETE FROM _sqlx_migrations WHERE version = 55",
];

#[tokio::test]
async fn sessions_of_before_go_on_and_end() {
    let control = Control::start().await;
    let token = control.organization("Lab").await.token;
    let directory = control.stop().await;
    database::execute(directory.path(), BACK_TO_54);
    let control = Control::start_in(directory, "").await;
    for (method, path, status) in [("GET", "/me", 200), ("DELETE", "/sessions/current", 204), ("GET", "/me", 401)] {
        let request = control.request(method, &format!("/api/v1{path}")).bearer_auth(&token);
        assert_eq!(request.send().await.unwrap().status(), status, "{method} {path}");
    }
}

/// Takes migration 52 back, and does what replicas of an older version did beside a newer one.
const BACK_TO_51: &[&str] = &[
    "UPDATE enrollment_codes SET id = NULL",
    "UPDATE servers SET name_key = 'straße' WHERE name = 'Straße'",
    "DELETE FROM _sqlx_migrations WHERE version = 52",
];

#[tokio::test]
async fn what_replicas_of_an_older_version_wrote_beside_a_newer_one_is_put_right() {
    let control = Control::start().await;
    let lab = control.organization("Lab").await;
    let server = lab.server("Straße").await;
    let (code, token) = (lab.code(&server).await, lab.token.clone());
    drop(lab);
    let directory = control.stop().await;
    database::execute(directory.path(), BACK_TO_51);
    let control = Control::start_in(directory, "").await;
    Gateway::new(7).enroll(&control, &code.secret).await.unwrap();
    let same = control.request("POST", "/api/v1/servers").bearer_auth(&token).json(&json!({"name": "STRASSE"}));
    assert_eq!(same.send().await.unwrap().status(), 409, "a name that looks the same is the same");
}
