//! The calls that make what somebody tries, and the ids of what they made.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    super::{
        harness::Org as User,
        model::{LIMITED_SECS, NARROW, Org, Try, channel_name, engine_of, server_name},
    },
    Case,
};

/// Method, path and body.
type Call = (&'static str, String, Option<Value>);

/// The ids of what the model counts, in the order of their making.
#[derive(Default)]
pub(super) struct Ids {
    pub(super) servers: Vec<String>,
    pub(super) channels: Vec<String>,
    requests: Vec<String>,
    pub(super) agreements: Vec<String>,
    grants: Vec<String>,
    pub(super) connections: Vec<String>,
    shares: Vec<String>,
}

impl Ids {
    /// The ids in an answer, those of what it made included.
    pub(super) fn learn(&mut self, answer: &Value) {
        remember(answer["agreement_id"].as_str(), &mut self.agreements);
        remember(answer["connection_id"].as_str(), &mut self.connections);
        for id in answer["connections"].as_array().into_iter().flatten() {
            remember(id.as_str(), &mut self.connections);
        }
        let id = answer["id"].as_str();
        let known = match id.and_then(|id| id.get(..3)) {
            Some("srv") => &mut self.servers,
            Some("chn") => &mut self.channels,
            Some("prq") => &mut self.requests,
            Some("grt") => &mut self.grants,
            Some("con") => &mut self.connections,
            Some("shr") => &mut self.shares,
            _ => return,
        };
        remember(id, known);
    }

    /// The statuses somebody is shown, by list and number.
    pub(super) async fn shown_to(&self, user: &User<'_>) -> Result<BTreeMap<(&'static str, usize), String>, String> {
        let lists = [
            ("requests", "/peering-requests?limit=200", &self.requests),
            ("agreements", "/agreements?limit=200", &self.agreements),
            ("grants", "/grants?limit=200", &self.grants),
            ("connections", "/connections?ended=true&limit=200", &self.connections),
            ("shares", "/server-shares?limit=200", &self.shares),
        ];
        let mut shown = BTreeMap::new();
        for (list, path, ids) in lists {
            for row in user.list::<Value>(path).await {
                let number = ids.iter().position(|id| row["id"] == id.as_str());
                let number = number.ok_or_else(|| format!("nobody made this one: {row}"))?;
                // A share has no status: it is in the list as long as it is open.
                shown.insert((list, number), row["status"].as_str().unwrap_or("open").to_owned());
            }
        }
        Ok(shown)
    }
}

fn remember(id: Option<&str>, known: &mut Vec<String>) {
    if let Some(id) = id.filter(|id| !known.iter().any(|known| known == id)) {
        known.push(id.to_owned());
    }
}

impl Case<'_> {
    /// `now`: what is limited ends so long after it, Unix seconds.
    pub(super) fn call(&self, what: Try, own: Org, now: u64) -> Call {
        let ids = &self.ids;
        let post = |path: &str, body: Value| ("POST", path.to_owned(), Some(body));
        let act = |noun: &str, id: &String, verb: &str| post(&format!("/{noun}/{id}/{verb}"), json!({}));
        let request = |n: usize, verb: &str| act("peering-requests", &ids.requests[n], verb);
        let agreement = |n: usize, verb: &str| act("agreements", &ids.agreements[n], verb);
        let grant = |n: usize, verb: &str| act("grants", &ids.grants[n], verb);
        let connection = |n: usize, verb: &str| act("connections", &ids.connections[n], verb);
        let server = |n: Option<usize>| n.map(|n| &ids.servers[n]);
        let end = |boxed: bool| boxed.then_some(now + LIMITED_SECS);
        let delete = |noun: &str, id: &String| ("DELETE", format!("/{noun}/{id}"), None);
        match what {
            Try::RequestPeering(to) => post("/peering-requests", json!({"organization_id": self.parties[to].id})),
            Try::AcceptPeering(n) => request(n, "accept"),
            Try::DeclinePeering(n) => request(n, "decline"),
            Try::WithdrawPeering(n) => request(n, "withdraw"),
            Try::Suspend(n) => agreement(n, "suspend"),
            Try::Lift(n) => agreement(n, "resume"),
            Try::End(n) => agreement(n, "end"),
            Try::Grant { agreement, channel, sender, limited } => {
                let (agreement, channel) = (&ids.agreements[agreement], &ids.channels[channel]);
                let mut body =
                    json!({"agreement_id": agreement, "channel_id": channel, "sender_server_id": server(sender)});
                if limited {
                    body["expires_at"] = json!(end(true));
                    body["max_streams"] = json!(NARROW.max_streams);
                    body["bytes_per_second"] = json!(NARROW.beside.bytes_per_second);
                    body["receive_timeout_secs"] = json!(NARROW.beside.receive_timeout_secs);
                    body["staleness_secs"] = json!(NARROW.staleness_secs);
                    body["require_post_quantum"] = json!(NARROW.post_quantum);
                }
                post("/grants", body)
            }
            Try::Approve { grant, sender, auto } => {
                let path = format!("/grants/{}/approve", ids.grants[grant]);
                post(&path, json!({"sender_server_id": server(sender), "auto_activate": auto}))
            }
            Try::Deny(n) => grant(n, "deny"),
            Try::Withdraw(n) => grant(n, "withdraw"),
            Try::Revoke(n) => grant(n, "revoke"),
            Try::Surrender(n) => grant(n, "surrender"),
            Try::OfferAdmin { agreement, server: owned, user, writes, boxed } => {
                let body = json!({
                    "agreement_id": ids.agreements[agreement], "server_id": ids.servers[owned],
                    "user_server_id": server(user), "access": if writes { "read_write" } else { "read_only" },
                    "expires_at": end(boxed),
                });
                post("/admin-connections", body)
            }
            Try::ApproveAdmin(n) => connection(n, "approve"),
            Try::AcceptAdmin { connection, server: used, auto } => {
                let path = format!("/connections/{}/accept", ids.connections[connection]);
                post(&path, json!({"server_id": server(used), "auto_activate": auto}))
            }
            Try::DeclineAdmin(n) => connection(n, "decline"),
            Try::Activate(n) => connection(n, "activate"),
            Try::Pause(n) => connection(n, "pause"),
            Try::Resume(n) => connection(n, "resume"),
            Try::Retry(n) => connection(n, "retry"),
            Try::Terminate(n) => connection(n, "terminate"),
            Try::Rotate { connection, at_once } => {
                let path = format!("/connections/{}/rotate-secret", ids.connections[connection]);
                post(&path, if at_once { json!({"at_once": true}) } else { json!({}) })
            }
            Try::Share { agreement, server, level, boxed } => {
                let body = json!({
                    "agreement_id": ids.agreements[agreement], "server_id": ids.servers[server], "level": level.name(),
                    "expires_at": end(boxed),
                });
                post("/server-shares", body)
            }
            Try::OpenShare { share, server: used } => {
                let path = format!("/server-shares/{}/open", ids.shares[share]);
                post(&path, json!({"server_id": server(used)}))
            }
            Try::EndShare(n) => act("server-shares", &ids.shares[n], "end"),
            Try::DemandTwoPersons(on) => ("PATCH", "/organization".to_owned(), Some(json!({"two_person_admin": on}))),
            Try::AddServer => post("/servers", json!({"name": server_name(ids.servers.len())})),
            Try::RemoveServer(n) => delete("servers", &ids.servers[n]),
            Try::AddChannel(n) => {
                let number = ids.channels.len();
                let body = json!({
                    "server_id": ids.servers[n], "name": format!("internal {number}"), "engine": engine_of(number),
                    "public_name": channel_name(number), "public_description": "for partners",
                });
                post("/channels", body)
            }
            Try::RemoveChannel(n) => delete("channels", &ids.channels[n]),
            Try::RemoveUser(role) => ("DELETE", self.parties[own].path_of(role), None),
        }
    }
}
