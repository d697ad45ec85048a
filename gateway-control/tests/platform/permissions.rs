//! Every cell of the permission matrix, on the wire: role × relation × act, each on an object of its own.

mod ways;

use std::collections::BTreeSet;

use gateway_control::service::permission::{Act, MATRIX, Relation, allows, name};
use gateway_proto::api::{
    Page,
    platform::{AuditEntry, Grant, PeeringRequest, Role},
};
use serde_json::{Value, json};

use self::ways::{Document, OTHERS, OWN_THINGS, is_aimed, is_there};
use super::harness::{Control, Org, Pair};

type Call = (&'static str, String, Option<Value>);

/// Rates that a test of hundreds of calls does not meet.
const FAST: &str = "[limits]\nrequests_per_second = 100000\nlogins_per_minute = 100000\n";

/// The users of an organization by role; the owner made it.
async fn users<'a>(org: &'a Org<'_>) -> [(Role, Org<'a>); 5] {
    [
        (Role::Owner, org.again()),
        (Role::Admin, org.user("admin").await),
        (Role::Operator, org.user("operator").await),
        (Role::Viewer, org.user("viewer").await),
        (Role::Auditor, org.user("auditor").await),
    ]
}

struct World<'a> {
    pair: &'a Pair<'a>,
    /// Has no agreement with the lab.
    asked: &'a Org<'a>,
    /// An admin of the lab beside those of the cells.
    first_person: &'a Org<'a>,
    /// An organization of the lab's tenant: not so many can be made in an hour.
    sub: Option<String>,
    number: usize,
}

impl World<'_> {
    fn fresh(&mut self) -> String {
        self.number += 1;
        format!("thing {}", self.number)
    }

    async fn channel(&mut self) -> Value {
        let name = self.fresh();
        let channel = self.pair.lab.channel(&self.pair.lab_server, &name).await;
        json!({"agreement_id": self.pair.agreement, "channel_id": channel.id})
    }

    /// A grant of the lab's channel that waits for the hospital.
    async fn offered(&mut self) -> Grant {
        let body = self.channel().await;
        self.pair.lab.post("/grants", body).await
    }

    async fn connection(&mut self) -> String {
        let name = self.fresh();
        self.pair.connection(&name).await
    }

    /// A call that does the act on a fresh object of the lab, whose peer is the hospital (or who is asked); `way` is one of
    /// the [`ways`] there are.
    async fn call(&mut self, act: Act, relation: Relation, way: usize) -> Call {
        if let Some(other) = way.checked_sub(shown(act)) {
            let (_, method, template) = others(act)[other];
            return self.other(method, template).await;
        }
        let (lab, hospital) = (&self.pair.lab, &self.pair.hospital);
        let empty = || Some(json!({}));
        match act {
            Act::Read => ("GET", format!("/grants/{}", self.offered().await.id), None),
            Act::ReadDirectory if way == 0 => ("GET", "/directory?q=lab".to_owned(), None),
            Act::ReadDirectory => ("GET", format!("/directory/{}", lab.id), None),
            Act::ReadAudit => ("GET", "/audit".to_owned(), None),
            Act::ChangeOrganization => {
                ("PATCH", "/organization".to_owned(), Some(json!({"description": self.fresh()})))
            }
            Act::DeleteOrganization | Act::ManageTenant => {
                let (sub, name) = (self.sub().await, self.fresh());
                if act == Act::DeleteOrganization {
                    // The tenant itself ends last: allowed, and in conflict with the one that is there.
                    return ("DELETE", "/organization".to_owned(), None);
                }
                let email = format!("{}@sub.example", name.replace(' ', "-"));
                let body = json!({"email": email, "name": "x", "role": "viewer"});
                ("POST", format!("/tenant/organizations/{sub}/invitations"), Some(body))
            }
            Act::ManageUsers => {
                let email = format!("{}@lab.example", self.fresh().replace(' ', "-"));
                let user = json!({"email": email, "name": "x", "role": "viewer", "password": "a long enough password"});
                let user: Value = lab.post("/users", user).await;
                let path = format!("/users/{}", user["id"].as_str().unwrap());
                if way == 0 { ("DELETE", path, None) } else { ("PATCH", path, Some(json!({"role": "operator"}))) }
            }
            Act::ManageServers => {
                let name = self.fresh();
                let server = lab.server(&name).await;
                let path = format!("/servers/{}/enrollment-codes", server.id);
                if way == 0 {
                    return ("POST", path, empty());
                }
                lab.code(&server).await;
                if way == 1 {
                    return ("GET", path, None);
                }
                let codes: Vec<Value> = lab.list(&path).await;
                ("DELETE", format!("{path}/{}", codes[0]["id"].as_str().unwrap()), None)
            }
            Act::ManageDevices => {
                let body = json!({"kind": "application", "name": self.fresh()});
                let device: Value = lab.post("/devices", body).await;
                let path = format!("/devices/{}", device["id"].as_str().unwrap());
                ("PATCH", path, Some(json!({"description": "new"})))
            }
            Act::ManageDeviceTokens => {
                let body = json!({"kind": "application", "name": self.fresh()});
                let device: Value = lab.post("/devices", body).await;
                ("POST", format!("/devices/{}/tokens", device["id"].as_str().unwrap()), empty())
            }
            Act::CreateLink | Act::RemoveLink => {
                let name = self.fresh();
                let body = json!({"kind": "application", "name": name, "linkable_by": "partners"});
                let (source, target): (Value, Value) =
                    (lab.post("/devices", body.clone()).await, hospital.post("/devices", body).await);
                let link = json!({"source_device_id": source["id"], "target_device_id": target["id"]});
                if act == Act::CreateLink {
                    return ("POST", "/links".to_owned(), Some(link));
                }
                let link: Value = lab.post("/links", link).await;
                ("DELETE", format!("/links/{}", link["id"].as_str().unwrap()), None)
            }
            Act::ManageTokens => {
                let body = json!({"name": self.fresh(), "scopes": ["read"]});
                ("POST", "/api-tokens".to_owned(), Some(body))
            }
            Act::PublishChannels => {
                let channel = self.channel().await;
                let path = format!("/channels/{}", channel["channel_id"].as_str().unwrap());
                ("PATCH", path, Some(json!({"public_description": "new"})))
            }
            Act::RequestPeering => ("POST", "/peering-requests".to_owned(), Some(json!({"organization_id": lab.id}))),
            Act::AnswerPeering | Act::WithdrawPeering => {
                let body = json!({"organization_id": self.asked.id});
                let request: PeeringRequest = lab.post("/peering-requests", body).await;
                let verb = if act == Act::WithdrawPeering { "withdraw" } else { "decline" };
                ("POST", format!("/peering-requests/{}/{verb}", request.id), empty())
            }
            Act::ChangeAgreement => ("POST", format!("/agreements/{}/resume", self.pair.agreement), empty()),
            Act::OfferGrant | Act::RequestGrant => ("POST", "/grants".to_owned(), Some(self.channel().await)),
            Act::AnswerGrant => {
                let verb = if relation == Relation::Own { "withdraw" } else { "approve" };
                ("POST", format!("/grants/{}/{verb}", self.offered().await.id), empty())
            }
            Act::RevokeGrant | Act::SurrenderGrant => {
                let grant = self.offered().await;
                let _: Grant = hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
                let verb = if act == Act::RevokeGrant { "revoke" } else { "surrender" };
                ("POST", format!("/grants/{}/{verb}", grant.id), empty())
            }
            Act::OperateConnections => ("POST", format!("/connections/{}/activate", self.connection().await), empty()),
            Act::RotateSecret => ("POST", format!("/connections/{}/rotate-secret", self.connection().await), empty()),
            Act::OfferAdmin => {
                let body = json!({"agreement_id": self.pair.agreement, "server_id": self.pair.lab_server.id});
                ("POST", "/admin-connections".to_owned(), Some(body))
            }
            Act::ApproveAdmin => {
                // The first person is a third one, whoever approves.
                let two = |on: bool| json!({"two_person_admin": on});
                lab.send("PATCH", "/organization", Some(two(true))).await;
                let body = json!({"agreement_id": self.pair.agreement, "server_id": self.pair.lab_server.id});
                let offer: Value = self.first_person.post("/admin-connections", body).await;
                lab.send("PATCH", "/organization", Some(two(false))).await;
                ("POST", format!("/connections/{}/approve", offer["id"].as_str().unwrap()), empty())
            }
            Act::AnswerAdmin => {
                let body = json!({"agreement_id": self.pair.agreement, "server_id": self.pair.lab_server.id});
                let offer: Value = lab.post("/admin-connections", body).await;
                ("POST", format!("/connections/{}/accept", offer["id"].as_str().unwrap()), empty())
            }
            Act::EnterAdmin => {
                let body = json!({"agreement_id": self.pair.agreement, "server_id": self.pair.lab_server.id});
                let offer: Value = lab.post("/admin-connections", body).await;
                let path = format!("/connections/{}", offer["id"].as_str().unwrap());
                let _: Value = hospital.post(&format!("{path}/accept"), json!({})).await;
                ("POST", format!("{path}/enter"), Some(json!({"account": "maria"})))
            }
            Act::ShareServer => {
                let name = self.fresh();
                let server = lab.server(&name).await;
                let body = json!({"agreement_id": self.pair.agreement, "server_id": server.id, "level": "viewer"});
                ("POST", "/server-shares".to_owned(), Some(body))
            }
            Act::OpenShare | Act::EndShare => {
                let name = self.fresh();
                let server = lab.server(&name).await;
                let body = json!({"agreement_id": self.pair.agreement, "server_id": server.id, "level": "viewer"});
                let share: Value = lab.post("/server-shares", body).await;
                let verb = if act == Act::OpenShare { "open" } else { "end" };
                ("POST", format!("/server-shares/{}/{verb}", share["id"].as_str().unwrap()), empty())
            }
            Act::TerminateConnections => {
                ("POST", format!("/connections/{}/terminate", self.connection().await), empty())
            }
        }
    }

    /// What a call leaves behind in the way of the next one: a request that waits becomes an agreement that ends, because
    /// requests in vain are counted.
    async fn clear(&self, act: Act, call: &Call) {
        if act == Act::ApproveAdmin {
            // So many offers may wait, approved or not.
            self.pair.lab.send("POST", &call.1.replace("/approve", "/terminate"), Some(json!({}))).await;
        }
        if act == Act::AnswerAdmin {
            let path = call.1.replace("/accept", "/terminate").replace("/decline", "/terminate");
            self.pair.lab.send("POST", &path, Some(json!({}))).await;
        }
        if !matches!(act, Act::AnswerPeering | Act::WithdrawPeering) {
            return;
        }
        let path = call.1.replace("/decline", "/accept").replace("/withdraw", "/accept");
        let answer = self.asked.send("POST", &path, Some(json!({}))).await;
        if answer.status().is_success() {
            let request: PeeringRequest = answer.json().await.unwrap();
            let path = format!("/agreements/{}/end", request.agreement_id.unwrap());
            let _: Value = self.pair.lab.post(&path, json!({})).await;
        }
    }
}

/// The ways to do an act that are in the table of them.
fn others(act: Act) -> Vec<(Act, &'static str, &'static str)> {
    OTHERS.iter().copied().filter(|(of, ..)| *of == act).collect()
}

/// How many calls there are that stand for an act in different ways.
fn ways(act: Act) -> usize {
    shown(act) + others(act).len()
}

/// How many of them are made here.
fn shown(act: Act) -> usize {
    if act == Act::ManageServers {
        3
    } else if matches!(act, Act::ManageUsers | Act::ReadDirectory) {
        2
    } else {
        1
    }
}

/// Whether a call can be made from there: what has no object of others in it cannot be aimed at others, and to ask for the
/// own channel is to offer it.
fn can_be_aimed(act: Act, relation: Relation) -> bool {
    let only = |acts: &[Act], wanted: bool| !acts.contains(&act) || wanted;
    let own = [Act::ReadAudit, Act::ChangeOrganization, Act::DeleteOrganization, Act::ManageTokens];
    only(&own, relation == Relation::Own)
        && only(&[Act::OfferGrant], relation != Relation::Peer)
        && only(&[Act::RequestGrant], relation != Relation::Own)
}

#[tokio::test]
async fn every_cell_of_the_permission_matrix_holds_on_the_wire() {
    let control = Control::start_with(FAST).await;
    let pair = control.pair().await;
    let (asked, stranger) = (control.organization("Asked").await, control.organization("Stranger").await);
    let (own, peer) = (users(&pair.lab).await, users(&pair.hospital).await);
    let (asked_users, strangers) = (users(&asked).await, users(&stranger).await);
    let first_person = pair.lab.person("admin", "first person").await;
    let mut world = World { pair: &pair, asked: &asked, first_person: &first_person, sub: None, number: 0 };
    let (document, mut covered) = (Document::new(), BTreeSet::new());
    let mut cells = 0;
    for rule in MATRIX {
        let act = rule.act;
        let peering = matches!(act, Act::AnswerPeering | Act::WithdrawPeering);
        for relation in Relation::ALL.iter().copied().filter(|relation| can_be_aimed(act, *relation)) {
            let users = match relation {
                Relation::Own => &own,
                Relation::Peer if peering => &asked_users,
                Relation::Peer => &peer,
                Relation::Stranger => &strangers,
            };
            let calls = users.iter().flat_map(|user| (0..ways(act)).map(move |way| (user, way)));
            for ((role, user), way) in calls {
                let is_other = way.checked_sub(shown(act)).map(|other| others(act)[other]);
                if is_other.is_some_and(|(_, method, template)| !is_aimed(method, template, relation)) {
                    continue;
                }
                cells += 1;
                let call = world.call(act, relation, way).await;
                let (method, path, body) = call.clone();
                covered.insert(document.operation(method, &path));
                if *role == Role::Owner && allows(*role, relation, act) {
                    document.tells_of_conditions(user, &call).await;
                }
                let answer = user.send(method, &path, body).await;
                let status = answer.status().as_u16();
                let what = format!(
                    "{} on a thing of relation {}: {method} {path} as {} answered {status} {:?}",
                    act.as_str(),
                    relation.as_str(),
                    name(*role),
                    answer.text().await
                );
                if allows(*role, relation, act) {
                    let again = matches!(act, Act::RequestPeering | Act::DeleteOrganization) && status == 409;
                    // The permission is asked first: who has it hears that there is nothing to do it to.
                    let is_void = is_other.is_some_and(|(_, _, template)| !is_there(template));
                    let again = again || is_void && matches!(status, 404 | 409);
                    assert!(again || (200..300).contains(&status), "allowed: {what}");
                } else if !rule.roles.contains(role) {
                    assert_eq!(status, 403, "the role forbids it: {what}");
                } else if relation == Relation::Stranger {
                    assert_eq!(status, 404, "strangers are told that there is none: {what}");
                } else {
                    assert!(status == 404 || status == 409, "the side forbids it: {what}");
                }
                world.clear(act, &call).await;
            }
        }
    }
    assert!(cells > 400, "{cells} cells");
    let missing: Vec<_> = document.changes_of_users().filter(|change| !covered.contains(change)).collect();
    assert!(missing.is_empty(), "no cell of the matrix does this, see ways.rs: {missing:?}");
    for what in OWN_THINGS {
        assert!(document.changes_of_all().any(|change| change == *what), "{what:?} is gone");
    }
    for org in [&pair.lab, &pair.hospital] {
        every_entry_says_what(org).await;
    }
}

/// Whether every entry of the log says what was changed, whoever did whatever.
async fn every_entry_says_what(org: &Org<'_>) {
    let mut cursor = Some(String::new());
    while let Some(from) = cursor {
        let page: Page<AuditEntry> = org.get(&format!("/audit?limit=200{from}")).await;
        for entry in page.items {
            assert!(!entry.detail.is_empty(), "{entry:?}");
        }
        cursor = page.next.map(|next| format!("&cursor={next}"));
    }
}
