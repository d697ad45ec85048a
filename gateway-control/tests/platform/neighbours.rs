//! What one organization costs another on the same platform: a turn, however much it does or has.

use std::time::Duration;

use futures_util::future::join_all;
use gateway_control::storage::{ConnectionRow, GrantRow, Storage, queries_run};
use gateway_proto::{
    api::platform::{AuditEntry, Connection, Count, Grant, PeeringRequest, Server, Usage},
    id::{ConnectionId, GrantId, OrganizationId, ServerId},
};
use serde_json::{Value, json};

use super::{
    database,
    harness::{Control, Gateway, Org},
};

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(20);

/// What the metrics say.
async fn metrics(control: &Control) -> String {
    let mut stream = tokio::net::TcpStream::connect(control.ready.metrics_listen.unwrap()).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
    text
}

/// Waits until the metrics say so.
pub(crate) async fn until(control: &Control, line: &str) {
    let said = async {
        while !metrics(control).await.lines().any(|said| said == line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, said).await.unwrap_or_else(|_| panic!("the metrics never said {line}"));
}

/// How many requests of one organization wait for a computation of passwords.
async fn passwords_waiting(control: &Control) -> u32 {
    let text = metrics(control).await;
    let line = text.lines().find_map(|line| line.strip_prefix("gateway_control_passwords_waiting "));
    line.unwrap().parse().unwrap()
}

/// The agreement of an organization with itself.
async fn own_agreement(org: &Org<'_>) -> String {
    let request: PeeringRequest = org.post("/peering-requests", json!({"organization_id": org.id})).await;
    request.agreement_id.unwrap().to_string()
}

/// When an entry of an audit log was made, to the millisecond.
fn made(entry: &AuditEntry) -> [u8; 6] {
    entry.id.to_bytes()[..6].try_into().unwrap()
}

#[tokio::test]
async fn forty_changes_of_one_organization_cost_the_revoke_of_another_one_of_them() {
    let control = Control::start_with("metrics_listen = '127.0.0.1:0'\n[limits]\nrequests_per_second = 100000\n").await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let flood = control.organization("Flood").await;
    let storage = database::open(control.directory.path()).await;
    let held = storage.begin().await.unwrap();
    let changes =
        join_all((0..40).map(|n| flood.send("POST", "/servers", Some(json!({"name": format!("server {n}")})))));
    let revoke = async {
        // One of the flood is at the database; the others wait for it, and for nobody else's place.
        until(&control, "gateway_control_writes_waiting 39").await;
        pair.lab.send("POST", &format!("/connections/{id}/terminate"), Some(json!({}))).await
    };
    let release = async {
        until(&control, "gateway_control_writes_at_work 2").await;
        held.commit().await.unwrap();
    };
    let (changes, revoked, ()) = tokio::join!(changes, revoke, release);
    assert_eq!(revoked.status(), 200);
    assert!(changes.iter().all(|answer| answer.status() == 201));
    let revoked: Vec<AuditEntry> = pair.lab.list("/audit?act=connection.terminate").await;
    let flooded: Vec<AuditEntry> = flood.list("/audit?act=server.create&limit=200").await;
    assert_eq!((revoked.len(), flooded.len()), (1, 40));
    let before = flooded.iter().filter(|entry| made(entry) < made(&revoked[0])).count();
    assert!(before <= 1, "{before} changes of the flood came first");
}

#[tokio::test]
async fn who_has_too_many_requests_waiting_is_told_so_and_nobody_else() {
    let control = Control::start_with("metrics_listen = '127.0.0.1:0'\n[limits]\nrequests_per_second = 100000\n").await;
    let (flood, other) = (control.organization("Flood").await, control.organization("Other").await);
    let storage = database::open(control.directory.path()).await;
    let held = storage.begin().await.unwrap();
    let changes =
        join_all((0..70).map(|n| flood.send("POST", "/servers", Some(json!({"name": format!("server {n}")})))));
    let rest = async {
        until(&control, "gateway_control_writes_refused_total 5").await;
        let change = other.send("POST", "/servers", Some(json!({"name": "main"})));
        let release = async {
            until(&control, "gateway_control_writes_at_work 2").await;
            held.commit().await.unwrap();
        };
        tokio::join!(change, release).0
    };
    let (changes, other) = tokio::join!(changes, rest);
    assert_eq!(other.status(), 201);
    let (done, refused): (Vec<_>, Vec<_>) = changes.into_iter().partition(|answer| answer.status() == 201);
    assert_eq!((done.len(), refused.len()), (65, 5));
    for answer in refused {
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (429, true));
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "busy");
    }
}

#[tokio::test]
async fn an_organization_that_makes_users_without_a_pause_keeps_nobody_from_signing_in() {
    let control = Control::start_with("metrics_listen = '127.0.0.1:0'\n[limits]\nrequests_per_second = 100000\n").await;
    let (flood, other) = (control.organization("Flood").await, control.organization("Other").await);
    let user = |email: &str| json!({"email": email, "name": "Somebody", "role": "viewer", "password": "another long password"});
    let users = join_all((0..60).map(|n| flood.send("POST", "/users", Some(user(&format!("{n}@flood.example"))))));
    let meanwhile = async {
        let waiting = async {
            while passwords_waiting(&control).await < 30 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the flood never waited for its passwords");
        other.sign_in().await;
        assert_eq!(other.send("POST", "/users", Some(user("one@other.example"))).await.status(), 201);
        // What is refused anyway costs no computation, and waits for none.
        let refused = flood.refused("POST", "/users", Some(user(&flood.session.user.email))).await;
        assert_eq!(refused.code, "conflict");
        assert!(passwords_waiting(&control).await > 0, "they came after the flood");
    };
    let (users, ()) = tokio::join!(users, meanwhile);
    // Whoever asks for so much waits for itself, and not for ever.
    assert!(users.iter().all(|answer| matches!(answer.status().as_u16(), 201 | 503)));
}

#[tokio::test]
async fn a_change_of_a_channel_takes_as_many_queries_however_many_have_it() {
    let control = Control::start().await;
    let (lab, gateway) = (control.organization("Lab").await, Gateway::new(1));
    let server = lab.server("lis").await;
    lab.enroll(&server, &gateway).await;
    let (agreement, channel) = (own_agreement(&lab).await, lab.channel(&server, "Orders").await);
    let grants = async |count: usize| {
        for _ in 0..count {
            let offer = json!({"agreement_id": agreement, "channel_id": channel.id, "sender_server_id": server.id});
            let _: Grant = lab.post("/grants", offer).await;
        }
    };
    // The fewest of some attempts, because others are at work beside it.
    let cost = async || {
        let mut fewest = u64::MAX;
        for n in 0..5 {
            let before = queries_run().get();
            let body = json!({"public_name": format!("Orders {before} {n}")});
            let answer = lab.send("PATCH", &format!("/channels/{}", channel.id), Some(body)).await;
            assert_eq!(answer.status(), 200);
            fewest = fewest.min(queries_run().get() - before);
        }
        fewest
    };
    grants(2).await;
    let few = cost().await;
    grants(18).await;
    let many = cost().await;
    assert!(many <= few + 2, "{few} queries with 2 connections, {many} with 20");
}

#[tokio::test]
async fn a_channel_has_room_for_so_many_grants_and_a_server_for_so_many_connections() {
    let control = Control::start().await;
    let (lab, hospital) = (control.organization("Lab").await, control.organization("Hospital").await);
    let operator = async |path: &str, body: Value| {
        let request = control.request("PUT", &format!("/api/v1{path}")).json(&body);
        let request = request.header("authorization", format!("Operator {}", control.operator));
        request.send().await.unwrap().status().as_u16()
    };
    let limits = |grants: u32, connections: u32| json!({"max_grants_per_channel": grants, "max_connections_per_server": connections, "admin_read_write": false});
    assert_eq!(operator("/tiers/small", limits(2, 3)).await, 200);
    assert_eq!(operator("/tiers/small", limits(2_001, 3)).await, 422, "a policy has an end, too");
    assert_eq!(operator(&format!("/organizations/{}/tier", lab.id), json!({"tier": "small"})).await, 204);
    let server = lab.server("lis").await;
    let (orders, results) = (lab.channel(&server, "Orders").await, lab.channel(&server, "Results").await);
    let agreement = own_agreement(&lab).await;
    let offer =
        |channel: &str| json!({"agreement_id": agreement, "channel_id": channel, "sender_server_id": server.id});
    let (orders, results) = (orders.id.to_string(), results.id.to_string());
    for _ in 0..2 {
        let _: Grant = lab.post("/grants", offer(&orders)).await;
    }
    let refused = lab.refused("POST", "/grants", Some(offer(&orders))).await;
    assert_eq!((refused.code.as_str(), refused.status), ("tier_limit", 409));
    assert!(refused.detail.contains("2 grants per channel"), "{}", refused.detail);
    let last: Grant = lab.post("/grants", offer(&results)).await;
    let refused = lab.refused("POST", "/grants", Some(offer(&results))).await;
    assert!(refused.detail.contains("3 connections per server"), "{}", refused.detail);
    // Whoever asks for one of them learns that there is no room, and nothing of the tier.
    let theirs = hospital.server("main").await;
    let with = lab.agree_with(&hospital).await;
    let ask = json!({"agreement_id": with, "channel_id": orders, "sender_server_id": theirs.id});
    let refused = hospital.refused("POST", "/grants", Some(ask)).await;
    assert_eq!(refused.code, "tier_limit");
    assert!(!refused.detail.contains("small"), "{}", refused.detail);
    // What ends makes room, and what is above a smaller limit stays and is shown.
    let _: Grant = lab.post(&format!("/grants/{}/revoke", last.id), json!({})).await;
    let _: Grant = lab.post("/grants", offer(&results)).await;
    assert_eq!(operator("/tiers/small", limits(1, 1)).await, 200);
    let usage: Usage = lab.get("/organization/usage").await;
    let connections = &usage.connections[0];
    assert_eq!(connections.server_id, server.id);
    let of = |count: &Count| (count.used, count.limit, count.surplus);
    assert_eq!(of(&connections.connections), (3, Some(1), 2));
    let grants: Vec<_> = usage.grants.iter().map(|row| (row.channel_id.to_string(), of(&row.grants))).collect();
    assert_eq!(grants, [(orders, (2, Some(1), 1)), (results, (1, Some(1), 0))]);
    // Where the tier names no limit, the platform has one.
    assert_eq!(operator(&format!("/organizations/{}/tier", lab.id), json!({"tier": "enterprise"})).await, 204);
    let usage: Usage = lab.get("/organization/usage").await;
    assert_eq!(of(&usage.connections[0].connections), (3, Some(2_000), 0));
}

#[tokio::test]
async fn policies_left_behind_are_found_organization_by_organization_what_ends_something_apart() {
    let control = Control::start().await;
    let mut organizations = Vec::new();
    for name in ["One", "Two"] {
        let organization = control.organization(name).await;
        let mut servers = Vec::new();
        for server in ["a", "b"] {
            let server: Server = organization.server(server).await;
            let number = u8::try_from(organizations.len() * 2 + servers.len()).unwrap();
            organization.enroll(&server, &Gateway::new(1 + number)).await;
            servers.push(server.id);
        }
        organizations.push((organization.session.organization.id, servers));
    }
    organizations.sort();
    let [(one, first), (two, second)]: [_; 2] = organizations.try_into().unwrap();
    let storage = database::open(control.directory.path()).await;
    // Nobody else sees what is not committed.
    let mut tx = storage.begin().await.unwrap();
    tx.mark_stale(&[first[1]], false, 5).await.unwrap();
    tx.mark_stale(&[first[0], second[0]], false, 7).await.unwrap();
    tx.mark_stale(&[second[1]], true, 9).await.unwrap();
    // The time of the first mark counts, and what ended something still does.
    tx.mark_stale(&[first[1]], false, 99).await.unwrap();
    tx.mark_stale(&[second[1]], false, 99).await.unwrap();
    let mut found = async |after: Option<OrganizationId>, ends: bool| -> Vec<ServerId> {
        let rows = tx.stale_servers_of_next(after, ends, 10).await.unwrap();
        assert!(rows.iter().all(|row| row.entries == 0));
        rows.into_iter().map(|row| row.server).collect()
    };
    assert_eq!(found(None, false).await, [first[1], first[0]], "the oldest first");
    assert_eq!(found(Some(one), false).await, [second[0]]);
    assert!(found(Some(two), false).await.is_empty());
    assert_eq!(found(None, true).await, [second[1]]);
    tx.mark_stale(&[second[0]], true, 99).await.unwrap();
    let rows = tx.stale_servers_of_next(None, true, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.server).collect::<Vec<_>>(), [second[0], second[1]]);
    assert!(rows.iter().all(|row| row.organization == two));
    // What could not be compiled comes last in its line, and stays in it.
    tx.put_behind(second[0], 100).await.unwrap();
    let rows = tx.stale_servers_of_next(None, true, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.server).collect::<Vec<_>>(), [second[1], second[0]]);
}

#[tokio::test]
async fn whose_partner_moves_is_compiled_after_those_who_wait_already() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    let (waiting, youngest) = (pair.lab.server("waiting").await, pair.lab.server("youngest").await);
    pair.lab.enroll(&waiting, &Gateway::new(3)).await;
    pair.lab.enroll(&youngest, &Gateway::new(4)).await;
    let storage = database::open(control.directory.path()).await;
    // Nobody else sees what is not committed.
    let mut tx = storage.begin().await.unwrap();
    tx.mark_stale(&[waiting.id], false, 5).await.unwrap();
    tx.mark_neighbours_stale(pair.hospital_server.id, 7).await.unwrap();
    tx.mark_all_stale(9).await.unwrap();
    let mut after = None;
    let marked = loop {
        let rows = tx.stale_servers_of_next(after, false, 10).await.unwrap();
        let organization = rows[0].organization;
        if organization == pair.lab.session.organization.id {
            break rows;
        }
        after = Some(organization);
    };
    let marked: Vec<_> = marked.into_iter().map(|row| row.server).collect();
    assert_eq!(marked, [waiting.id, pair.lab_server.id, youngest.id]);
}

#[tokio::test]
async fn a_revoke_reaches_gateways_that_have_more_connections_than_a_change_compiles() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let (mut one, mut two) = pair.watches().await;
    one.policy().await;
    two.policy().await;
    pair.lab.until(&id, "active", |connection| connection.status.as_str() == "active").await;
    let storage = database::open(control.directory.path()).await;
    let mut tx = storage.begin().await.unwrap();
    let connection = tx.connection(id.parse().unwrap()).await.unwrap().unwrap();
    let grant = tx.grant(connection.grant.unwrap()).await.unwrap().unwrap();
    for _ in 0..210 {
        let grant = GrantRow { id: GrantId::new(1, gateway_net::random()), ..grant.clone() };
        let id = ConnectionId::new(1, gateway_net::random());
        tx.insert_grant(&grant).await.unwrap();
        tx.insert_connection(&ConnectionRow { id, grant: Some(grant.id), ..connection.clone() }).await.unwrap();
    }
    tx.commit().await.unwrap();
    let _: Value = pair.lab.post(&format!("/connections/{id}/terminate"), json!({})).await;
    let id: ConnectionId = id.parse().unwrap();
    for watch in [&mut one, &mut two] {
        let policy = watch.policy_until(|policy| policy.connection(id).is_none()).await;
        assert_eq!(policy.connections.len(), 210);
    }
    let in_force = |connection: &Connection| connection.policy_in_force_since.is_some();
    pair.lab.until(&id.to_string(), "ended at both ends", in_force).await;
}
