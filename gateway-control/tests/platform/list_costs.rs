//! What a list costs the database: as many queries for a long page as for a short one, for every list of the document.

use gateway_control::storage::queries_run;
use gateway_proto::{
    api::{
        Page,
        gateway::WatchRequest,
        platform::{Grant, PeeringRequest, Server},
    },
    balance::EndCounts,
};
use serde_json::{Value, json};

use super::{
    harness::{Control, Gateway, Org},
    reports::{counted, told},
};

/// Rows of every list at least, so that a difference shows.
const ROWS: usize = 5;
/// What the first row does not name may be named by another: that is one query more of its kind, however many do.
const KINDS: u64 = 2;

/// Lists whose rows do not come from queries of their own, or of which there is one page without a limit.
const UNPAGED: &[&str] = &["/api/v1/platform/audit"];

struct World<'a> {
    lab: Org<'a>,
    server: Server,
    channel: String,
    agreement: String,
    device: String,
    user: String,
}

/// A world with several rows in every list of the lab.
async fn world(control: &Control) -> World<'_> {
    let (lab, main) = (control.organization("Lab").await, Gateway::new(1));
    let server = lab.server("lis").await;
    lab.enroll(&server, &main).await;
    let mut channel = String::new();
    for n in 0..ROWS {
        channel = lab.channel(&server, &format!("channel {n}")).await.id.to_string();
    }
    let mut agreement = String::new();
    let mut gateways = Vec::new();
    for n in 0..ROWS {
        let partner = control.organization(&format!("Partner {n}")).await;
        let there = partner.server("main").await;
        let gateway = Gateway::new(10 + u8::try_from(n).unwrap());
        partner.enroll(&there, &gateway).await;
        agreement = partner.agree_with(&lab).await;
        let theirs = partner.channel(&there, "theirs").await;
        // Of the last partner several are published: his page of the catalogue is asked for.
        for n in 1..ROWS {
            partner.channel(&there, &format!("theirs {n}")).await;
        }
        // Theirs, to be seen by us; and two connections, one of them administrative.
        for channel in [&channel, &theirs.id.to_string()] {
            let is_theirs = *channel == theirs.id.to_string();
            let (from, to, sender) = if is_theirs { (&partner, &lab, &server) } else { (&lab, &partner, &there) };
            let offer = json!({"agreement_id": agreement, "channel_id": channel});
            let grant: Grant = from.post("/grants", offer).await;
            let approval = json!({"sender_server_id": sender.id});
            let _: Grant = to.post(&format!("/grants/{}/approve", grant.id), approval).await;
        }
        let admin = json!({"agreement_id": agreement, "server_id": server.id});
        let admin: Value = lab.post("/admin-connections", admin).await;
        let _: Value = partner.post(&format!("/connections/{}/accept", admin["id"].as_str().unwrap()), json!({})).await;
        let share = lab.server(&format!("shared {n}")).await;
        let share = json!({"agreement_id": agreement, "server_id": share.id, "level": "viewer"});
        let _: Value = lab.post("/server-shares", share).await;
        let device = json!({"kind": "application", "name": format!("device {n}"), "linkable_by": "partners"});
        let source: Value = lab.post("/devices", device.clone()).await;
        let target: Value = partner.post("/devices", device).await;
        let link = json!({"source_device_id": source["id"], "target_device_id": target["id"]});
        let _: Value = lab.post("/links", link).await;
        let stranger = control.organization(&format!("Stranger {n}")).await;
        let _: PeeringRequest = stranger.post("/peering-requests", json!({"organization_id": lab.id})).await;
        for (path, body) in [
            (
                "/users",
                json!({"email": format!("u{n}@lab.example"), "name": "x", "role": "viewer", "password": "a long enough password"}),
            ),
            ("/invitations", json!({"email": format!("i{n}@lab.example"), "name": "x", "role": "viewer"})),
            ("/api-tokens", json!({"name": format!("token {n}"), "scopes": ["read"]})),
            (
                "/tenant/organizations",
                json!({"name": format!("Sub {n}"), "owner_email": format!("o{n}@sub.example"), "owner_name": "x"}),
            ),
        ] {
            let _: Value = lab.post(path, body).await;
        }
        let system = json!({"kind": "application", "name": format!("system {n}")});
        let system = control.request("POST", "/api/v1/system-devices").json(&system);
        let system = system.header("authorization", format!("Operator {}", control.operator));
        assert_eq!(system.send().await.unwrap().status(), 201);
        gateways.push(gateway);
    }
    let devices: Vec<Value> = lab.list("/devices").await;
    let device = devices[0]["id"].as_str().unwrap().to_owned();
    for _ in 0..ROWS {
        let _: Value = lab.post(&format!("/devices/{device}/tokens"), json!({})).await;
    }
    reports(control, &lab, &main).await;
    let users: Vec<Value> = lab.list("/users").await;
    let user = users[0]["id"].as_str().unwrap().to_owned();
    World { lab, server, channel, agreement, device, user }
}

/// The gateway tells of its connections, so that there is something to be shown of each.
async fn reports(control: &Control, lab: &Org<'_>, gateway: &Gateway) {
    let mut watch = gateway.watch(control).await;
    watch.policy().await;
    let connections: Vec<Value> = lab.list("/connections").await;
    let counts = EndCounts { epoch: 1, messages: 7, ..EndCounts::default() };
    let reports = connections.iter().map(|connection| counted(connection["id"].as_str().unwrap(), counts));
    watch.send(&told(reports.collect())).await;
    // Said after it, and so done after it.
    watch.send(&WatchRequest::Heartbeat).await;
    watch.stays_at(watch.store.current().unwrap().revision).await;
}

impl World<'_> {
    /// A path of the document with the ids of this world.
    fn path(&self, path: &str) -> String {
        let id = match path.split('/').nth(3).unwrap_or_default() {
            "servers" => self.server.id.to_string(),
            "channels" => self.channel.clone(),
            "agreements" => self.agreement.clone(),
            "devices" => self.device.clone(),
            "users" => self.user.clone(),
            "platform" | "organizations" => self.lab.id.clone(),
            _ => String::new(),
        };
        path.replace("{id}", &id)
    }

    /// Rows and queries of a page with at most so many entries: the fewest of some attempts, because others are at work beside it.
    async fn cost(&self, path: &str, is_operators: bool, limit: usize) -> (usize, u64) {
        let (mut rows, mut fewest) = (0, u64::MAX);
        for _ in 0..5 {
            let more =
                if path.ends_with("/endpoints") { format!("&agreement={}", self.agreement) } else { String::new() };
            let request = self.lab.control.request("GET", &format!("{path}?limit={limit}{more}"));
            let request = if is_operators {
                request.header("authorization", format!("Operator {}", self.lab.control.operator))
            } else {
                request.bearer_auth(&self.lab.token)
            };
            let before = queries_run().get();
            let answer = request.send().await.unwrap();
            let status = answer.status();
            let text = answer.text().await.unwrap();
            let cost = queries_run().get() - before;
            assert_eq!(status, 200, "{path}: {text}");
            rows = serde_json::from_str::<Page<Value>>(&text).unwrap().items.len();
            fewest = fewest.min(cost);
        }
        (rows, fewest)
    }
}

#[tokio::test]
async fn a_long_page_of_a_list_takes_no_more_queries_than_a_short_one() {
    let control = Control::start_with("[limits]\nrequests_per_second = 1000000").await;
    let world = world(&control).await;
    let document: Value = control.request("GET", "/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    let (mut lists, mut wrong) = (0, Vec::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        let operation = &item["get"];
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        if !parameters.iter().any(|parameter| parameter["name"] == "limit") || UNPAGED.contains(&path.as_str()) {
            continue;
        }
        let is_operators = operation["security"].to_string().contains("operator");
        let path = world.path(path);
        let (short, few) = world.cost(&path, is_operators, 1).await;
        let (long, many) = world.cost(&path, is_operators, 200).await;
        lists += 1;
        let is_thin = ["gateway-audit/heads", "executions"].iter().any(|thin| path.contains(thin));
        if !is_thin && (short != 1 || long < ROWS) {
            wrong.push(format!("{path}: {short} and {long} rows show nothing"));
        }
        if many > few + KINDS {
            wrong.push(format!("{path}: {few} queries for {short} rows, {many} for {long}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lists > 15, "{lists} lists");
}
