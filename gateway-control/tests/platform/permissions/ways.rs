//! The other ways to do what an act of the matrix stands for, by operation of the document: together with those of the matrix they
//! are all that a user can change, and the test says which one is missing.

use gateway_control::service::permission::{Act, Relation};
use serde_json::{Value, json};

use super::{Call, World};
use crate::harness::Org;

/// Operations beside those that the cells make by themselves.
pub(super) const OTHERS: &[(Act, &str, &str)] = &[
    (Act::ManageTenant, "POST", "/tenant/organizations"),
    (Act::ManageTenant, "DELETE", "/tenant/organizations/{id}"),
    (Act::ManageUsers, "POST", "/users"),
    (Act::ManageUsers, "POST", "/invitations"),
    (Act::ManageUsers, "DELETE", "/invitations/{id}"),
    (Act::ManageUsers, "DELETE", "/users/{id}/totp"),
    (Act::ManageUsers, "DELETE", "/users/{id}/identities/{identity}"),
    (Act::ManageUsers, "DELETE", "/api-tokens/{id}"),
    (Act::ManageServers, "POST", "/servers"),
    (Act::ManageServers, "DELETE", "/servers/{id}"),
    (Act::ManageServers, "POST", "/servers/{id}/gateway-audit/acknowledge"),
    (Act::ManageDevices, "POST", "/devices"),
    (Act::ManageDevices, "DELETE", "/devices/{id}"),
    (Act::ManageDeviceTokens, "DELETE", "/device-tokens/{id}"),
    (Act::PublishChannels, "POST", "/channels"),
    (Act::PublishChannels, "DELETE", "/channels/{id}"),
    (Act::PublishChannels, "POST", "/servers/{id}/engine/channels"),
    (Act::AnswerAdmin, "POST", "/connections/{id}/decline"),
    (Act::EnterAdmin, "POST", "/connections/{id}/leave"),
];

/// What somebody does to the own user and session, or asks without changing anything: no role has a say in it.
pub(super) const OWN_THINGS: &[(&str, &str)] = &[
    ("POST", "/me/password"),
    ("POST", "/me/totp"),
    ("POST", "/me/totp/confirm"),
    ("POST", "/me/totp/disable"),
    ("DELETE", "/sessions/current"),
    ("POST", "/device-tokens/introspect"),
];

/// What makes something of the own organization, whoever asks, cannot be aimed at others. Nor can the end of an API token: everybody has
/// some and may end those, so that one of others is unknown before anything else is asked.
pub(super) fn is_aimed(method: &str, template: &str, relation: Relation) -> bool {
    relation == Relation::Own || template != "/api-tokens/{id}" && (method != "POST" || template.contains("{id}"))
}

/// Whether there is something that it can be done to: an alarm, an account at a provider and an engine take more than a request.
pub(super) fn is_there(template: &str) -> bool {
    let needs_more = ["/gateway-audit/acknowledge", "/identities/{identity}", "/engine/channels"];
    !needs_more.iter().any(|end| template.ends_with(end))
}

fn id(of: &Value) -> &str {
    of["id"].as_str().unwrap()
}

impl World<'_> {
    /// An organization of the lab's tenant, that was not removed.
    pub(super) async fn sub(&mut self) -> String {
        let lab = &self.pair.lab;
        if let Some(sub) = self.sub.clone()
            && lab.send("GET", &format!("/tenant/organizations/{sub}"), None).await.status() == 200
        {
            return sub;
        }
        let name = self.fresh();
        let email = format!("{}@lab.example", name.replace(' ', "-"));
        let body = json!({"name": name, "owner_email": email, "owner_name": "x"});
        let made: Value = lab.post("/tenant/organizations", body).await;
        self.sub.insert(id(&made["organization"]).to_owned()).clone()
    }

    /// A call of such an operation on a fresh object of the lab.
    pub(super) async fn other(&mut self, method: &'static str, template: &str) -> Call {
        let (pair, name) = (self.pair, self.fresh());
        let (lab, email) = (&pair.lab, format!("{}@lab.example", name.replace(' ', "-")));
        let device = json!({"kind": "application", "name": name});
        let person = json!({"email": email, "name": "x", "role": "viewer"});
        let (at, body) = match (method, template) {
            ("POST", "/tenant/organizations") => {
                (String::new(), Some(json!({"name": name, "owner_email": email, "owner_name": "x"})))
            }
            ("DELETE", "/tenant/organizations/{id}") => (self.sub().await, None),
            ("POST", "/users") => {
                let mut user = person;
                user["password"] = json!("a long enough password");
                (String::new(), Some(user))
            }
            ("POST", "/invitations") => (String::new(), Some(person)),
            ("DELETE", "/invitations/{id}") => {
                let made: Value = lab.post("/invitations", person).await;
                (id(&made["invitation"]).to_owned(), None)
            }
            ("DELETE", "/users/{id}/totp" | "/users/{id}/identities/{identity}") => {
                (self.first_person.session.user.id.to_string(), None)
            }
            ("DELETE", "/api-tokens/{id}") => {
                let made: Value =
                    self.first_person.post("/api-tokens", json!({"name": name, "scopes": ["read"]})).await;
                (id(&made["api_token"]).to_owned(), None)
            }
            ("POST", "/servers") => (String::new(), Some(json!({"name": name}))),
            ("DELETE", "/servers/{id}") => (lab.server(&name).await.id.to_string(), None),
            ("POST", "/servers/{id}/gateway-audit/acknowledge") => {
                (pair.lab_server.id.to_string(), Some(json!({"note": "looked at"})))
            }
            ("POST", "/servers/{id}/engine/channels") => {
                (pair.lab_server.id.to_string(), Some(json!({"engine_channel": "none", "public_name": name})))
            }
            ("POST", "/devices") => (String::new(), Some(device)),
            ("DELETE", "/devices/{id}") => {
                let made: Value = lab.post("/devices", device).await;
                (id(&made).to_owned(), None)
            }
            ("DELETE", "/device-tokens/{id}") => {
                let made: Value = lab.post("/devices", device).await;
                let made: Value = lab.post(&format!("/devices/{}/tokens", id(&made)), json!({})).await;
                (id(&made["device_token"]).to_owned(), None)
            }
            ("POST", "/channels") => {
                let server = pair.lab_server.id;
                (String::new(), Some(json!({"server_id": server, "name": name, "engine": "127.0.0.1:6661"})))
            }
            ("DELETE", "/channels/{id}") => (lab.channel(&pair.lab_server, &name).await.id.to_string(), None),
            ("POST", "/connections/{id}/decline" | "/connections/{id}/leave") => {
                let body = json!({"agreement_id": pair.agreement, "server_id": pair.lab_server.id});
                let offer: Value = lab.post("/admin-connections", body).await;
                if template.ends_with("/leave") {
                    let accept = format!("/connections/{}/accept", id(&offer));
                    let _: Value = pair.hospital.post(&accept, json!({})).await;
                }
                (id(&offer).to_owned(), Some(json!({})))
            }
            _ => panic!("nobody knows how to call {method} {template}"),
        };
        let path = template.replace("{id}", &at).replace("{identity}", "idn_00000000000070008000000000000000");
        (method, path, body)
    }
}

/// The OpenAPI document, asked about calls.
pub(super) struct Document(Value);

impl Document {
    pub(super) fn new() -> Self {
        Self(serde_json::from_str(&gateway_control::http::document()).unwrap())
    }

    /// Every operation that changes something and is for users.
    pub(super) fn changes_of_all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let items = self.0["paths"].as_object().unwrap().iter();
        let operations = items.flat_map(|(path, item)| {
            let methods = ["POST", "PUT", "PATCH", "DELETE"].into_iter();
            methods.filter_map(move |method| Some((method, path, item.get(method.to_lowercase())?)))
        });
        // Without a word of its own an operation is for who is signed in.
        let of_users = operations.filter(|(_, _, said)| {
            let ways = said["security"].as_array();
            ways.is_none_or(|ways| ways.iter().any(|way| way.get("session").is_some()))
        });
        of_users.map(|(method, path, _)| (method, path.strip_prefix("/api/v1").unwrap()))
    }

    /// The same without what somebody does to the own user.
    pub(super) fn changes_of_users(&self) -> impl Iterator<Item = (String, String)> {
        let changes = self.changes_of_all().filter(|change| !OWN_THINGS.contains(change));
        changes.map(|(method, path)| (method.to_owned(), path.to_owned()))
    }

    /// The operation of a call: the path of the document with the most words in common.
    pub(super) fn operation(&self, method: &str, path: &str) -> (String, String) {
        let path = path.split('?').next().unwrap();
        let in_common = |known: &str| {
            let (known, asked): (Vec<_>, Vec<_>) = (known.split('/').collect(), path.split('/').collect());
            let pairs = || known.iter().zip(&asked);
            let fits =
                known.len() == asked.len() && pairs().all(|(known, asked)| known == asked || known.starts_with('{'));
            fits.then(|| pairs().filter(|(known, asked)| known == asked).count())
        };
        let all = self.0["paths"].as_object().unwrap().iter();
        let with_method = all.filter(|(_, item)| item.get(method.to_lowercase()).is_some());
        let known = with_method.filter_map(|(known, _)| known.strip_prefix("/api/v1"));
        let fitting = known.filter_map(|known| Some((in_common(known)?, known)));
        let (_, best) = fitting.max().unwrap_or_else(|| panic!("{method} {path} is not in the document"));
        (method.to_owned(), best.to_owned())
    }

    /// Whether a call on a condition that does not hold is refused as the document has it: because of the condition where it takes one,
    /// and because it takes none elsewhere. Nothing is done by it.
    pub(super) async fn tells_of_conditions(&self, user: &Org<'_>, (method, path, body): &Call) {
        if *method == "GET" {
            return;
        }
        let (_, template) = self.operation(method, path);
        let said = &self.0["paths"][format!("/api/v1{template}")][method.to_lowercase()];
        let parameters = said["parameters"].as_array().into_iter().flatten();
        let is_said = parameters.clone().any(|parameter| parameter["name"] == "If-Match");
        let request = user.control.request(method, &format!("/api/v1{path}")).bearer_auth(&user.token);
        let request = request.header("if-match", "\"00\"").json(&body.clone().unwrap_or_else(|| json!({})));
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        let is_taken = match (status, problem["code"].as_str()) {
            (412, _) => true,
            (422, Some("unconditional")) => false,
            // Refused for another reason before.
            (404 | 409, _) => return,
            _ => panic!("{method} {path} on a condition: {status} {problem}"),
        };
        assert_eq!(is_taken, is_said, "{method} {template}: If-Match in the document, and in fact");
    }
}
