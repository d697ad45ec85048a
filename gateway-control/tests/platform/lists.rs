//! Lists: pages that neither lose nor repeat, filters, and how a log goes on after its oldest entries went.

use std::{collections::BTreeSet, time::Duration};

use gateway_control::storage::Storage;
use gateway_proto::{
    api::{
        Page,
        platform::{
            AccessEntry, Agreement, AuditAnchor, AuditEntry, Channel, Connection, ConnectionPage, EndedCount, Grant,
            PeeringRequest, Usage,
        },
    },
    audit::verify_after,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    database,
    harness::{Control, Org},
};

impl Org<'_> {
    /// A whole list, in pages of two.
    async fn pages<T: DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page: Page<T> = self.get(&format!("{path}{sign}limit=2{cursor}")).await;
            assert!(page.items.len() <= 2);
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

fn distinct<T: Ord + Clone>(ids: &[T]) -> bool {
    ids.is_sorted() && ids.iter().collect::<BTreeSet<_>>().len() == ids.len()
}

#[tokio::test]
async fn pages_hold_everything_once_in_a_stable_order_also_what_belongs_to_both_sides() {
    let control = Control::start().await;
    let hospital = control.organization("Hospital").await;
    let lab = control.organization("Lab").await;
    let (ours, theirs) = (hospital.server("main").await, lab.server("lis").await);
    let agreement = hospital.agree_with(&lab).await;
    let own = hospital.post::<PeeringRequest>("/peering-requests", json!({"organization_id": hospital.id})).await;
    let own = own.agreement_id.unwrap().to_string();
    for n in 0..5 {
        let given = hospital.channel(&ours, &format!("given {n}")).await;
        let received = lab.channel(&theirs, &format!("received {n}")).await;
        let offer = |agreement: &str, channel: &Channel| json!({"agreement_id": agreement, "channel_id": channel.id});
        let grant: Grant = hospital.post("/grants", offer(&agreement, &given)).await;
        let _: Grant = lab.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
        let grant: Grant = lab.post("/grants", offer(&agreement, &received)).await;
        let _: Grant = hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
        // Inside one organization a grant is given and received, a connection sent and received.
        let mut within = offer(&own, &given);
        within["sender_server_id"] = json!(ours.id);
        let _: Grant = hospital.post("/grants", within).await;
    }
    let grants: Vec<Grant> = hospital.pages("/grants").await;
    assert!(grants.len() == 15 && distinct(&grants.iter().map(|grant| grant.id).collect::<Vec<_>>()));
    let connections: Vec<Connection> = hospital.pages("/connections").await;
    assert!(connections.len() == 15 && distinct(&connections.iter().map(|row| row.id).collect::<Vec<_>>()));
    let _: Value = hospital.post(&format!("/connections/{}/terminate", connections[3].id), json!({})).await;
    assert_eq!(hospital.pages::<Connection>("/connections").await.len(), 14);
    assert_eq!(hospital.pages::<Connection>("/connections?ended=true").await.len(), 15);
    let ended = async |query: &str| hospital.get::<ConnectionPage>(&format!("/connections{query}")).await.ended;
    assert_eq!(ended("?limit=2").await, Some(EndedCount { number: 1, and_more: false }));
    let first: ConnectionPage = hospital.get("/connections?limit=2").await;
    for query in ["?ended=true", "?kind=p2p", &format!("?cursor={}", first.next.unwrap())] {
        assert_eq!(ended(query).await, None, "nothing is left out, or it was counted with the first page: {query}");
    }
    assert_eq!(hospital.pages::<Connection>(&format!("/connections?agreement={own}&ended=true")).await.len(), 5);

    let given: Vec<Grant> = hospital.pages("/grants?direction=given").await;
    assert!(given.len() == 10 && given.iter().all(|grant| grant.direction != "received"));
    assert_eq!(hospital.pages::<Grant>("/grants?direction=received").await.len(), 10);
    assert_eq!(hospital.pages::<Grant>("/grants?status=active").await.len(), 14);
    assert_eq!(hospital.pages::<Grant>(&format!("/grants?channel={}", given[0].channel_id)).await.len(), 2);
    let agreements: Vec<Agreement> = hospital.pages("/agreements?status=active").await;
    assert_eq!(agreements.len(), 2);
    assert!(hospital.pages::<Agreement>("/agreements?status=ended").await.is_empty());
    assert_eq!(hospital.pages::<PeeringRequest>("/peering-requests?direction=incoming").await.len(), 1);
    assert_eq!(lab.pages::<PeeringRequest>("/peering-requests?direction=outgoing").await.len(), 0);
    let access: Vec<AccessEntry> = hospital.pages(&format!("/servers/{}/access", ours.id)).await;
    assert!(access.len() >= 9 && distinct(&access.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>()));
    assert!(access.iter().all(|entry| !entry.organization_name.is_empty()));
    let found: Vec<Channel> = hospital.pages("/channels?search=GIVEN%203&published=true").await;
    assert_eq!(found.len(), 1);
    assert!(hospital.pages::<Channel>("/channels?search=%25").await.is_empty(), "a search is no pattern");
    assert!(hospital.pages::<Channel>(&format!("/channels?server={}", theirs.id)).await.is_empty());
    let unknown = hospital.refused("GET", "/grants?sttaus=active", None).await;
    assert_eq!(unknown.code, "invalid", "a filter with a slip must not show everything");
    assert_eq!(hospital.refused("GET", "/executions?devise=x", None).await.code, "invalid", "nor may a bill");
    let of_hospital = format!("/organizations/{}/executions?devise=x", hospital.id);
    assert_eq!(control.as_operator("GET", &of_hospital, json!({})).await.status(), 422);
    assert_eq!(hospital.refused("GET", "/grants?limit=201", None).await.code, "invalid");
    assert_eq!(hospital.refused("GET", "/grants?cursor=%F0", None).await.code, "invalid");
}

/// Copies of each connection.
const MORE: &[&str] = &["WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 1500)
     INSERT INTO connections (id, agreement_id, kind, status, ended, auto_activate, secret, sender_organization, sender_port,
         sender_paused, sender_revision, listener_server_id, listener_organization, listener_paused, listener_revision,
         created_at, ended_at)
     SELECT id || '-' || CAST(number AS TEXT), agreement_id, kind, status, ended, auto_activate, secret, sender_organization,
         sender_port, sender_paused, sender_revision, listener_server_id, listener_organization, listener_paused,
         listener_revision, created_at, ended_at FROM connections, numbers"];

#[tokio::test]
async fn connections_that_ended_are_counted_up_to_a_thousand() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let id = pair.connection("Orders").await;
    let _: Value = pair.lab.post(&format!("/connections/{id}/terminate"), json!({})).await;
    let (token, session, own) = (pair.lab.token.clone(), pair.lab.session.clone(), pair.lab.id.clone());
    let directory = control.stop().await;
    database::execute(directory.path(), MORE);
    let control = Control::start_in(directory, "").await;
    let lab = Org { control: &control, token, id: own, session };
    let page: ConnectionPage = lab.get("/connections").await;
    assert_eq!((page.items.len(), page.ended), (0, Some(EndedCount { number: 1_000, and_more: true })));
}

#[tokio::test]
async fn a_log_is_filtered_by_act_object_actor_and_time() {
    let control = Control::start().await;
    let pair = control.pair().await;
    pair.connection("Orders").await;
    let all: Vec<AuditEntry> = pair.lab.pages("/audit").await;
    let acts: Vec<AuditEntry> = pair.lab.pages("/audit?act=grant.").await;
    assert!(!acts.is_empty() && acts.iter().all(|entry| entry.act.starts_with("grant.")));
    assert!(acts.len() < all.len());
    let object = &acts[0].object;
    let about: Vec<AuditEntry> = pair.lab.pages(&format!("/audit?object={object}")).await;
    assert!(!about.is_empty() && about.iter().all(|entry| entry.object == *object));
    let by: Vec<AuditEntry> = pair.lab.pages("/audit?actor=owner@lab.example").await;
    assert!(!by.is_empty() && by.iter().all(|entry| entry.actor == "owner@lab.example"));
    let later = control.clock.unix_secs() + 10;
    assert!(pair.lab.pages::<AuditEntry>(&format!("/audit?since={later}")).await.is_empty());
    assert_eq!(pair.lab.pages::<AuditEntry>(&format!("/audit?until={later}")).await.len(), all.len());
}

#[tokio::test]
async fn old_entries_go_and_what_is_left_of_the_log_still_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start_in(directory, "audit_retention_days = 30").await;
    let pair = control.pair().await;
    let before: Vec<AuditEntry> = pair.hospital.pages("/audit").await;
    assert_eq!(pair.hospital.get::<AuditAnchor>("/audit/anchor").await.sequence, 0);
    control.clock.advance(Duration::from_secs(31 * 24 * 3600));
    let hospital = pair.hospital.sign_in().await;
    let _ = hospital.server("second").await;
    let chain = hospital.id.clone();
    let (token, session, clock) = (hospital.token.clone(), hospital.session.clone(), control.clock.clone());
    let directory = control.stop().await;
    let control = Control::start_at(directory, "audit_retention_days = 30", clock).await;
    let hospital = Org { control: &control, token, id: chain.clone(), session };
    // What the reconciler does once it can believe the clock.
    while control.service.retain_audit().await.unwrap() {}
    let anchor: AuditAnchor = hospital.get("/audit/anchor").await;
    let mut left: Vec<AuditEntry> = hospital.pages("/audit").await;
    left.reverse();
    assert_eq!(anchor.sequence, before[0].sequence, "all of the old ones, and none of the new ones");
    assert_eq!(anchor.hash, before[0].hash, "an export from before leads to where the log begins");
    verify_after(&chain, anchor.sequence, &anchor.hash, &left).unwrap();
    let retained = left.iter().find(|entry| entry.act == "audit.retain").expect("the removal is an entry itself");
    assert!(retained.detail.contains(&anchor.hash) && retained.actor == "system", "{retained:?}");
    assert!(verify_after(&chain, 0, "", &left).is_err());
    let directory = control.stop().await;
    database::open(directory.path()).await.ping().await.unwrap();
}

#[tokio::test]
async fn what_time_has_ended_is_so_in_every_list_at_once() {
    let control = Control::start().await;
    let pair = control.pair().await;
    let channel = pair.lab.channel(&pair.lab_server, "Orders").await;
    let end = control.clock.unix_secs() + 60;
    let offer = json!({"agreement_id": pair.agreement, "channel_id": channel.id, "expires_at": end});
    let grant: Grant = pair.lab.post("/grants", offer).await;
    let _: Grant = pair.hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
    let share =
        json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "level": "metrics", "expires_at": end});
    let _: Value = pair.lab.post("/server-shares", share).await;
    let admin = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id, "expires_at": end});
    let _: Connection = pair.lab.post("/admin-connections", admin).await;
    let count = async |path: &str| pair.hospital.list::<Value>(path).await.len();
    let before = [count("/grants?status=active").await, count("/connections").await, count("/server-shares").await];
    assert_eq!(before, [1, 2, 1]);
    let access = async || {
        let of_channel: Vec<AccessEntry> = pair.lab.list(&format!("/channels/{}/access", channel.id)).await;
        let of_server: Vec<AccessEntry> = pair.lab.list(&format!("/servers/{}/access", pair.lab_server.id)).await;
        [of_channel.len(), of_server.len()]
    };
    assert_eq!(access().await, [1, 3]);
    // Written down a little later, which changes nothing of it.
    control.clock.advance(Duration::from_secs(61));
    for (path, expected) in [
        ("/grants?status=active", 0),
        ("/grants?status=expired", 1),
        ("/connections", 0),
        ("/connections?status=offered", 0),
        ("/connections?status=expired", 0),
        ("/connections?ended=true", 2),
        ("/connections?ended=true&status=expired", 2),
        ("/connections?ended=true&status=ready", 0),
        ("/server-shares", 0),
        ("/server-shares?ended=true", 1),
    ] {
        assert_eq!(count(path).await, expected, "{path}");
    }
    assert_eq!(access().await, [0, 0], "who has access is a list, too");
    let clinic = control.organization("Clinic").await;
    let _: PeeringRequest = clinic.post("/peering-requests", json!({"organization_id": pair.lab.id})).await;
    control.clock.advance(Duration::from_secs(14 * 24 * 3600));
    let lab = pair.lab.sign_in().await;
    for (status, expected) in [("pending", 0), ("expired", 1)] {
        let path = format!("/peering-requests?status={status}");
        assert_eq!(lab.list::<PeeringRequest>(&path).await.len(), expected, "{status}");
    }
}

/// What the reconciler does once it can believe the clock.
async fn write_down(control: &Control) {
    let mut passed_over = BTreeSet::new();
    while control.service.expire_overdue(&mut passed_over).await.unwrap() {}
}

#[tokio::test]
async fn what_time_has_ended_takes_room_until_it_is_written_down_and_what_waited_in_vain_does_not() {
    let control = Control::start_with("[limits]\nrequests_per_second = 1000\n").await;
    let pair = control.pair().await;
    let tier = json!({"max_grants_per_channel": 1, "max_connections_per_server": 22, "admin_read_write": false});
    assert_eq!(control.as_operator("PUT", "/tiers/small", tier).await.status(), 200);
    let path = format!("/organizations/{}/tier", pair.lab.id);
    assert_eq!(control.as_operator("PUT", &path, json!({"tier": "small"})).await.status(), 204);
    let two = json!({"two_person_admin": true});
    assert!(pair.lab.send("PATCH", "/organization", Some(two)).await.status().is_success());
    let orders = pair.lab.channel(&pair.lab_server, "Orders").await;
    let labels = pair.lab.channel(&pair.lab_server, "Labels").await;
    let end = control.clock.unix_secs() + 600;
    let agreement = &pair.agreement;
    let offer = |of: &Channel, end: u64| json!({"agreement_id": agreement, "channel_id": of.id, "expires_at": end});
    let server = pair.lab_server.id;
    let admin = |end: u64| json!({"agreement_id": agreement, "server_id": server, "expires_at": end});
    let grant: Grant = pair.lab.post("/grants", offer(&orders, end)).await;
    let port = json!({"sender_port": 17_001});
    let _: Grant = pair.hospital.post(&format!("/grants/{}/approve", grant.id), port.clone()).await;
    let _: Grant = pair.lab.post("/grants", offer(&labels, end)).await;
    for _ in 0..20 {
        // Each of them waits for a second person.
        let _: Connection = pair.lab.post("/admin-connections", admin(end)).await;
    }
    assert_eq!(pair.lab.refused("POST", "/admin-connections", Some(admin(end))).await.code, "conflict");
    assert_eq!(pair.lab.refused("POST", "/grants", Some(offer(&orders, end))).await.code, "tier_limit");
    let used = async || {
        let usage: Usage = pair.lab.get("/organization/usage").await;
        let connections: u32 = usage.connections.iter().map(|server| server.connections.used).sum();
        let grants: u32 = usage.grants.iter().map(|channel| channel.grants.used).sum();
        (connections, grants)
    };
    assert_eq!(used().await, (21, 2));

    // A clock that was set and did not run is not believed: nothing is written down.
    control.clock.set_ahead(Duration::from_secs(601));
    let later = end + 3_600;
    assert_eq!(used().await, (21, 1), "the offer that nobody answered is over");
    let grant: Grant = pair.lab.post("/grants", offer(&labels, later)).await;
    let _: Connection = pair.lab.post("/admin-connections", admin(later)).await;
    let full = pair.lab.refused("POST", "/admin-connections", Some(admin(later))).await;
    assert_eq!(full.code, "tier_limit", "those that are over are in the policy");
    assert!(full.detail.contains("written down"), "{}", full.detail);
    assert_eq!(pair.lab.refused("POST", "/grants", Some(offer(&orders, later))).await.code, "tier_limit");
    let approve = format!("/grants/{}/approve", grant.id);
    let taken = pair.hospital.refused("POST", &approve, Some(port.clone())).await;
    assert_eq!(taken.code, "conflict", "the port of a connection that may be not over at all");
    assert!(taken.detail.contains("written down"), "{}", taken.detail);
    control.clock.set_ahead(Duration::ZERO);
    let listed: Vec<Connection> = pair.hospital.list("/connections?kind=p2p").await;
    assert_eq!(listed.len(), 1, "it was not over");

    control.clock.set_ahead(Duration::from_secs(601));
    write_down(&control).await;
    assert_eq!(used().await, (1, 1));
    let _: Grant = pair.lab.post("/grants", offer(&orders, later)).await;
    let _: Grant = pair.hospital.post(&approve, port).await;
    assert_eq!(used().await, (2, 2), "the local port is free, too");
}

#[tokio::test]
async fn shares_whose_time_is_over_count_until_that_is_written_down() {
    let control = Control::start_with("[limits]\nrequests_per_second = 1000\n").await;
    let pair = control.pair().await;
    let (agreement, server) = (&pair.agreement, pair.lab_server.id);
    let share = || {
        let end = control.clock.unix_secs() + 10;
        json!({"agreement_id": agreement, "server_id": server, "level": "metrics", "expires_at": end})
    };
    for n in 1..=100 {
        let _: Value = pair.lab.post("/server-shares", share()).await;
        // A clock that was set and did not run is not believed: nothing is written down.
        control.clock.set_ahead(Duration::from_secs(20 * n));
    }
    let full = pair.lab.refused("POST", "/server-shares", Some(share())).await;
    assert_eq!(full.code, "conflict");
    assert!(full.detail.contains("written down"), "{}", full.detail);
    write_down(&control).await;
    let _: Value = pair.lab.post("/server-shares", share()).await;
}
