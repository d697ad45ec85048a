//! Random acts of random users: the platform and the reference model end in the same states after every single one, and
//! the gateways' policies say exactly what the model allows.

use std::collections::BTreeMap;

use gateway_proto::{
    api::platform::{Agreement, Channel, Connection, Grant, PeeringRequest},
    policy::Policy,
};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy},
    prop_oneof,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::{Value, json};

use super::{
    harness::{Control, Gateway, Org, Watch},
    model::{Model, Outcome, Role, Try},
};

const FAST: &str = "registration = 'open'\n[limits]\nrequests_per_second = 100000\nlogins_per_minute = 100000\n";

/// Who tries what; objects are chosen among those that exist then.
type Step = (usize, Role, Try);

fn step() -> impl Strategy<Value = Step> {
    let role = prop_oneof![8 => Just(Role::Owner), 2 => Just(Role::Operator), 1 => Just(Role::Viewer)];
    let number = 0..64usize;
    let what = prop_oneof![
        3 => Just(Try::RequestPeering),
        4 => number.clone().prop_map(Try::AcceptPeering),
        1 => number.clone().prop_map(Try::DeclinePeering),
        1 => number.clone().prop_map(Try::WithdrawPeering),
        1 => number.clone().prop_map(Try::Suspend),
        3 => number.clone().prop_map(Try::Lift),
        1 => number.clone().prop_map(Try::End),
        5 => (0..2usize).prop_map(Try::Grant),
        6 => number.clone().prop_map(Try::Approve),
        1 => number.clone().prop_map(Try::Deny),
        1 => number.clone().prop_map(Try::Withdraw),
        1 => number.clone().prop_map(Try::Revoke),
        1 => number.clone().prop_map(Try::Surrender),
        3 => Just(Try::OfferAdmin),
        4 => number.clone().prop_map(Try::AcceptAdmin),
        1 => number.clone().prop_map(Try::DeclineAdmin),
        6 => number.clone().prop_map(Try::Activate),
        3 => number.clone().prop_map(Try::Pause),
        3 => number.clone().prop_map(Try::Resume),
        1 => number.prop_map(Try::Terminate),
    ];
    (0..2usize, role, what)
}

/// One organization of a case: its users, server, channel and the watch of its gateway.
struct Party<'a> {
    owner: Org<'a>,
    operator: Org<'a>,
    viewer: Org<'a>,
    server: String,
    channel: Channel,
    watch: Watch,
    policy: BTreeMap<usize, &'static str>,
}

impl<'a> Party<'a> {
    async fn new(control: &'a Control, name: &str, gateway: u8) -> Party<'a> {
        let owner = control.organization(name).await;
        let (operator, viewer) =
            (owner.user("operator").await.detached(control), owner.user("viewer").await.detached(control));
        let server = owner.server("main").await;
        let gateway = Gateway::new(gateway);
        owner.enroll(&server, &gateway).await;
        let channel = owner.channel(&server, "Orders").await;
        let mut watch = gateway.watch(control).await;
        watch.policy().await;
        Party { owner, operator, viewer, server: server.id.to_string(), channel, watch, policy: BTreeMap::new() }
    }

    fn user(&self, role: Role) -> &Org<'a> {
        match role {
            Role::Owner => &self.owner,
            Role::Operator => &self.operator,
            Role::Viewer => &self.viewer,
        }
    }
}

/// The ids of what the model counts, in the order of their making.
#[derive(Default)]
struct Ids {
    requests: Vec<String>,
    agreements: Vec<String>,
    grants: Vec<String>,
    connections: Vec<String>,
}

struct Case<'a> {
    parties: [Party<'a>; 2],
    model: Model,
    ids: Ids,
}

impl Case<'_> {
    /// The attempt with its object chosen, and the call that makes it.
    fn call(&self, own: usize, what: Try) -> (Try, String, Value) {
        let empty = json!({});
        let pick = |n: usize, ids: &[String]| n % ids.len();
        let ids = &self.ids;
        let act = |ids: &[String], noun: &str, n: usize, verb: &str| format!("/{noun}/{}/{verb}", ids[n]);
        macro_rules! on {
            ($ids:ident, $noun:literal, $n:ident, $what:ident, $verb:literal, $body:expr) => {{
                let n = pick($n, &ids.$ids);
                (Try::$what(n), act(&ids.$ids, $noun, n, $verb), $body)
            }};
        }
        let by_hand = json!({"auto_activate": false});
        match what {
            Try::RequestPeering => {
                let other = &self.parties[1 - own].owner.id;
                (what, "/peering-requests".to_owned(), json!({"organization_id": other}))
            }
            Try::AcceptPeering(n) => on!(requests, "peering-requests", n, AcceptPeering, "accept", empty),
            Try::DeclinePeering(n) => on!(requests, "peering-requests", n, DeclinePeering, "decline", empty),
            Try::WithdrawPeering(n) => on!(requests, "peering-requests", n, WithdrawPeering, "withdraw", empty),
            Try::Suspend(n) => on!(agreements, "agreements", n, Suspend, "suspend", empty),
            Try::Lift(n) => on!(agreements, "agreements", n, Lift, "resume", empty),
            Try::End(n) => on!(agreements, "agreements", n, End, "end", empty),
            Try::Grant(owner) => {
                let body = json!({
                    "agreement_id": ids.agreements.last(), "channel_id": self.parties[owner].channel.id,
                });
                let sender =
                    if owner == own { json!({}) } else { json!({"sender_server_id": self.parties[own].server}) };
                (what, "/grants".to_owned(), merged(body, sender))
            }
            Try::Approve(n) => on!(grants, "grants", n, Approve, "approve", by_hand),
            Try::Deny(n) => on!(grants, "grants", n, Deny, "deny", empty),
            Try::Withdraw(n) => on!(grants, "grants", n, Withdraw, "withdraw", empty),
            Try::Revoke(n) => on!(grants, "grants", n, Revoke, "revoke", empty),
            Try::Surrender(n) => on!(grants, "grants", n, Surrender, "surrender", empty),
            Try::OfferAdmin => {
                let body = json!({"agreement_id": ids.agreements.last(), "server_id": self.parties[own].server});
                (what, "/admin-connections".to_owned(), body)
            }
            Try::AcceptAdmin(n) => on!(connections, "connections", n, AcceptAdmin, "accept", by_hand),
            Try::DeclineAdmin(n) => on!(connections, "connections", n, DeclineAdmin, "decline", empty),
            Try::Activate(n) => on!(connections, "connections", n, Activate, "activate", empty),
            Try::Pause(n) => on!(connections, "connections", n, Pause, "pause", empty),
            Try::Resume(n) => on!(connections, "connections", n, Resume, "resume", empty),
            Try::Terminate(n) => on!(connections, "connections", n, Terminate, "terminate", empty),
        }
    }

    async fn step(&mut self, (own, role, what): Step) -> Result<(), String> {
        if !self.model.has_object(what) {
            return Ok(());
        }
        let (what, path, body) = self.call(own, what);
        let expected = self.model.attempt(own, role, what);
        let answer = self.parties[own].user(role).send("POST", &path, Some(body)).await;
        let status = answer.status();
        let answer: Value = answer.json().await.map_err(|error| format!("{path}: {error}"))?;
        let code = answer["code"].as_str().unwrap_or_default().to_owned();
        let agrees = match expected {
            Outcome::Done => status.is_success(),
            Outcome::Refused(expected) => code == expected,
        };
        if !agrees {
            return Err(format!("{own} {role:?} {what:?} at {path}: {status} {answer}, the model says {expected:?}"));
        }
        if status.is_success() {
            self.learn(&answer);
        }
        self.compare(own).await?;
        self.policies().await
    }

    /// The ids in an answer, those of what it made included.
    fn learn(&mut self, answer: &Value) {
        let ids = &mut self.ids;
        for (field, known) in [("agreement_id", &mut ids.agreements), ("connection_id", &mut ids.connections)] {
            remember(answer[field].as_str(), known);
        }
        let Some(id) = answer["id"].as_str() else { return };
        let known = match &id[..3] {
            "prq" => &mut ids.requests,
            "grt" => &mut ids.grants,
            "con" => &mut ids.connections,
            _ => return,
        };
        remember(Some(id), known);
    }

    /// What one side is shown, against the model.
    async fn compare(&self, viewer: usize) -> Result<(), String> {
        let (org, model, ids) = (&self.parties[viewer].owner, &self.model, &self.ids);
        let requests: Vec<PeeringRequest> = org.list("/peering-requests").await;
        let agreements: Vec<Agreement> = org.list("/agreements").await;
        let grants: Vec<Grant> = org.list("/grants").await;
        let connections: Vec<Connection> = org.list("/connections?ended=true").await;
        let shown: BTreeMap<String, &str> = (requests.iter().map(|row| (row.id.to_string(), row.status.as_str())))
            .chain(agreements.iter().map(|row| (row.id.to_string(), row.status.as_str())))
            .chain(grants.iter().map(|row| (row.id.to_string(), row.status.as_str())))
            .chain(connections.iter().map(|row| (row.id.to_string(), row.status.as_str())))
            .collect();
        let named = |ids: &[String], statuses: Vec<&'static str>| ids.iter().cloned().zip(statuses).collect::<Vec<_>>();
        let expected: BTreeMap<String, &str> =
            named(&ids.requests, model.requests.iter().map(|row| row.status).collect())
                .into_iter()
                .chain(named(&ids.agreements, model.agreements.iter().map(|row| row.status()).collect()))
                .chain(named(&ids.grants, model.grants.iter().map(|row| row.status).collect()))
                .chain(named(&ids.connections, model.connections.iter().map(|row| row.status).collect()))
                .collect();
        if shown == expected { Ok(()) } else { Err(format!("shown {shown:#?}, the model says {expected:#?}")) }
    }

    /// Both gateways get exactly what the model allows; the policy store of the watch refuses a revision that goes back.
    async fn policies(&mut self) -> Result<(), String> {
        let expected = self.model.policy();
        for party in &mut self.parties {
            while party.policy != expected {
                let policy = party.watch.policy().await;
                let content = content(&policy, &self.ids.connections)?;
                if content != expected && content != party.policy {
                    return Err(format!("a gateway holds {content:?}, the model allows {expected:?}"));
                }
                party.policy = content;
            }
        }
        Ok(())
    }
}

fn content(policy: &Policy, ids: &[String]) -> Result<BTreeMap<usize, &'static str>, String> {
    let entries = policy.connections.iter().map(|entry| {
        let id = entry.id.to_string();
        let number = ids.iter().position(|known| *known == id).ok_or_else(|| format!("an unknown connection {id}"))?;
        let word = match serde_json::to_value(entry.activation).unwrap().as_str().unwrap() {
            "ready" => "ready",
            "active" => "active",
            "paused" => "paused",
            "suspended" => "suspended",
            other => return Err(format!("an unknown activation {other}")),
        };
        Ok((number, word))
    });
    entries.collect()
}

fn remember(id: Option<&str>, known: &mut Vec<String>) {
    if let Some(id) = id.filter(|id| !known.iter().any(|known| known == id)) {
        known.push(id.to_owned());
    }
}

fn merged(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

/// `PROPTEST_CASES` makes it longer.
#[test]
fn random_acts_of_random_users_end_as_in_the_reference_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let control = runtime.block_on(Control::start_with(FAST));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let config = Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let number = std::cell::Cell::new(0u8);
    let outcome = TestRunner::new(config).run(&vec(step(), 30..90), |steps| {
        // Keys and names of their own for every case.
        number.set(number.get().wrapping_add(1));
        let n = number.get();
        let run = async {
            let parties = [
                Party::new(&control, &format!("First {n}"), n.wrapping_mul(2)).await,
                Party::new(&control, &format!("Second {n}"), n.wrapping_mul(2).wrapping_add(1)).await,
            ];
            let mut case = Case { parties, model: Model::default(), ids: Ids::default() };
            for step in steps {
                case.step(step).await?;
            }
            Ok::<(), String>(())
        };
        runtime.block_on(run).map_err(TestCaseError::fail)
    });
    drop(runtime);
    outcome.unwrap();
}
