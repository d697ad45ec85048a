//! What the document says is the least and the most that is accepted: what is just beyond it is refused, for every bound of every
//! operation. The bounds are read from the document; here stands only what else a request needs to come as far as that.

use gateway_proto::{
    api::{
        gateway::EnrollRequest,
        platform::{CreatedInvitation, Grant},
    },
    id::RelayId,
};
use serde_json::{Value, json};

use super::harness::{Control, Gateway, Pair};

/// Bodies are not larger: what is longer is refused as a whole, and does not go into a query at all.
const MAX_BODY: u64 = 1 << 20;
/// Asks for a channel of the engine beside a server first; its fields are those of `POST /channels`, and go through the same hands.
const LEFT_OUT: &str = "/api/v1/servers/{id}/engine/channels";

/// What requests are made of.
struct World<'a> {
    control: &'a Control,
    pair: &'a Pair<'a>,
    document: Value,
    channel: String,
    device: String,
    connection: String,
    grant: String,
    share: String,
    sub: String,
    relay: RelayId,
    code: String,
}

fn id(of: &Value) -> String {
    of["id"].as_str().unwrap().to_owned()
}

impl<'a> World<'a> {
    async fn new(control: &'a Control, pair: &'a Pair<'a>) -> Self {
        let (lab, server) = (&pair.lab, &pair.lab_server);
        let channel = lab.channel(server, "Results").await.id.to_string();
        let offer = json!({"agreement_id": pair.agreement, "channel_id": channel});
        let grant: Grant = lab.post("/grants", offer).await;
        let share = json!({"agreement_id": pair.agreement, "server_id": server.id, "level": "viewer"});
        let person = json!({"email": "invited@lab.example", "name": "I", "role": "viewer"});
        let sub = json!({"name": "Sub", "owner_email": "s@x.example", "owner_name": "S"});
        let relay = RelayId::new(1, [7; 10]);
        let listed = json!({"id": relay, "name": "one", "url": "wss://one.example:443/relay", "stun": []});
        assert_eq!(control.as_operator("POST", "/relays", listed).await.status(), 201);
        Self {
            control,
            pair,
            document: serde_json::from_str(&gateway_control::http::document()).unwrap(),
            device: id(&lab.post::<Value>("/devices", json!({"kind": "application", "name": "ehr"})).await),
            connection: pair.connection("Orders").await,
            grant: grant.id.to_string(),
            share: id(&lab.post::<Value>("/server-shares", share).await),
            sub: id(&lab.post::<Value>("/tenant/organizations", sub).await["organization"]),
            code: lab.post::<CreatedInvitation>("/invitations", person).await.code.0.clone(),
            channel,
            relay,
        }
    }

    /// The path of an operation on something that is there.
    fn path(&self, template: &str) -> String {
        let known = [
            ("/servers/{id}", self.pair.lab_server.id.to_string()),
            ("/channels/{id}", self.channel.clone()),
            ("/devices/{id}", self.device.clone()),
            ("/connections/{id}", self.connection.clone()),
            ("/grants/{id}", self.grant.clone()),
            ("/server-shares/{id}", self.share.clone()),
            ("/tenant/organizations/{id}", self.sub.clone()),
            ("/organizations/{id}", self.pair.lab.id.clone()),
            ("/relays/{id}", self.relay.to_string()),
            ("/users/{id}", self.pair.lab.session.user.id.to_string()),
        ];
        let found = known.iter().find(|(noun, _)| template.contains(noun));
        let path = found.map_or_else(|| template.to_owned(), |(_, id)| template.replace("{id}", id));
        path.replace("{name}", "beyond").replace("{kind}", "operator").replace("{provider}", "nobody")
    }

    /// A body without fault; what may be left out is left out.
    fn body(&self, method: &str, template: &str) -> Value {
        let person = json!({"email": "b@x.example", "name": "B", "role": "viewer"});
        let password = "a long enough password";
        let template = template.strip_prefix("/api/v1").unwrap_or(template);
        match (method, template) {
            ("post", "/organizations") => json!({
                "name": "Beyond", "owner_email": "b@x.example", "owner_name": "B", "owner_password": password,
                "registration_token": self.control.operator,
            }),
            ("post", "/sessions") => json!({"email": "b@x.example", "password": password}),
            ("post", "/users") => {
                let mut user = person;
                user["password"] = json!(password);
                user
            }
            ("post", "/invitations" | "/tenant/organizations/{id}/invitations") => person,
            ("post", "/invitations/accept") => json!({"code": self.code, "password": password}),
            ("post", "/tenant/organizations") => {
                json!({"name": "Beyond", "owner_email": "b@x.example", "owner_name": "B"})
            }
            ("post", "/me/password") => json!({"current": password, "new": password}),
            ("post", "/me/totp") => json!({"password": password}),
            ("post", "/me/totp/confirm") => json!({"code": "000000"}),
            ("post", "/me/totp/disable") => json!({"password": password, "code": "000000"}),
            ("post", "/servers") => json!({"name": "beyond"}),
            ("post", "/servers/{id}/gateway-audit/acknowledge") => json!({"note": ""}),
            ("post", "/peering-requests") => json!({"organization_id": self.pair.hospital.id}),
            ("post", "/channels") => {
                json!({"server_id": self.pair.lab_server.id, "name": "beyond", "engine": "127.0.0.1:6661"})
            }
            ("post", "/grants") => json!({"agreement_id": self.pair.agreement, "channel_id": self.channel}),
            ("post", "/admin-connections") => {
                json!({"agreement_id": self.pair.agreement, "server_id": self.pair.lab_server.id})
            }
            ("post", "/server-shares") => {
                json!({"agreement_id": self.pair.agreement, "server_id": self.pair.lab_server.id, "level": "viewer"})
            }
            ("post", "/api-tokens") => json!({"name": "beyond", "scopes": ["read"]}),
            ("post", "/oidc/start") => json!({"challenge": "a".repeat(64)}),
            ("post", "/oidc/sessions") => json!({"code": "x", "verifier": "x"}),
            ("post", "/devices" | "/system-devices") => json!({"kind": "application", "name": "beyond"}),
            ("post", "/device-tokens/introspect") => json!({"token": "x"}),
            ("put", "/token-terms") => json!({"default_secs": 600, "max_secs": 600}),
            ("put", "/tiers/{name}") => json!({"admin_read_write": false}),
            ("put", "/behaviors/{name}") => json!({"description": ""}),
            ("post", "/relays") => {
                json!({"id": RelayId::new(1, [8; 10]), "name": "two", "url": "wss://two.example:443/relay", "stun": []})
            }
            ("post", "/gateway/enroll") => {
                let gateway = Gateway::new(9);
                let request = EnrollRequest::new("x".to_owned(), &gateway.key, gateway.noise, "1".to_owned());
                serde_json::to_value(&request).unwrap()
            }
            _ => json!({}),
        }
    }

    /// Sends a request as whoever the operation is for.
    async fn send(&self, said: &Value, (method, path): (&str, &str), body: Option<&Value>) -> reqwest::Response {
        let mut request = self.control.request(&method.to_uppercase(), path);
        let ways: Vec<_> = said["security"].as_array().into_iter().flatten().collect();
        let takes = |scheme: &str| ways.iter().any(|way| way.get(scheme).is_some());
        if ways.is_empty() || takes("session") {
            request = request.bearer_auth(&self.pair.lab.token);
        } else if takes("operator") {
            request = request.header("authorization", format!("Operator {}", self.control.operator));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }
}

/// A value that is just beyond a bound of a field, and where the field is.
struct Beyond {
    at: Vec<String>,
    value: Value,
    /// No body has room for it.
    is_all: bool,
}

/// What is just beyond each bound of a schema and of what is in it.
fn beyond(document: &Value, at: &[String], schema: &Value) -> Vec<Beyond> {
    if let Some(name) = schema["$ref"].as_str() {
        return beyond(document, at, document.pointer(name.trim_start_matches('#')).unwrap());
    }
    let mut found = Vec::new();
    let number = |name: &str| schema[name].as_u64();
    let text = |length: u64| json!("x".repeat(usize::try_from(length).unwrap()));
    let mut push = |value: Value, is_all: bool| found.push(Beyond { at: at.to_owned(), value, is_all });
    if let Some(most) = number("maxLength") {
        push(text(most + 1), most >= MAX_BODY);
    }
    if let Some(least) = number("minLength").and_then(|least| least.checked_sub(1)) {
        push(text(least), false);
    }
    if let Some(most) = number("maximum") {
        push(json!(most + 1), false);
    }
    if let Some(least) = number("minimum") {
        push(least.checked_sub(1).map_or(json!(-1), |less| json!(less)), false);
    }
    if let Some(most) = number("maxItems") {
        push(json!(vec!["read"; usize::try_from(most).unwrap() + 1]), false);
        for entry in beyond(document, at, &schema["items"]) {
            push(json!([entry.value]), entry.is_all);
        }
    }
    for part in ["oneOf", "anyOf", "allOf"] {
        let parts = schema[part].as_array().into_iter().flatten();
        found.extend(parts.flat_map(|part| beyond(document, at, part)));
    }
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        found.extend(beyond(document, &[at, std::slice::from_ref(field)].concat(), schema));
    }
    found
}

/// Puts a value where it belongs, in objects that are made where there are none.
fn put(body: &mut Value, at: &[String], value: Value) {
    let place = at.iter().fold(body, |place, field| &mut place[field.as_str()]);
    *place = value;
}

/// Whether a refusal is about a field: by its name or the greater part of it, or because it cannot be read.
fn is_about(field: &str, detail: &str) -> bool {
    let is_unreadable = detail.contains("is not what is expected here") || detail.contains("is not understood");
    // A new password is called by what it is.
    let field = if field == "new" { "password" } else { field };
    let mut words = field.split('_').filter(|word| word.len() > 1).map(|word| word.trim_end_matches('s'));
    (is_unreadable && !detail.contains("missing field")) || words.any(|word| detail.contains(word))
}

#[tokio::test]
async fn one_beyond_every_bound_of_the_document_is_refused() {
    let fast = "[limits]\nrequests_per_second = 100000\nlogins_per_minute = 100000\n";
    let control = Control::start_with(fast).await;
    let pair = control.pair().await;
    let world = World::new(&control, &pair).await;
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (template, item) in world.document["paths"].as_object().unwrap() {
        for (method, said) in item.as_object().unwrap().iter().filter(|_| template != LEFT_OUT) {
            let path = world.path(template);
            let schema = &said["requestBody"]["content"]["application/json"]["schema"];
            let base = world.body(method, template);
            for Beyond { at, value, is_all } in beyond(&world.document, &[], schema) {
                let mut body = base.clone();
                put(&mut body, &at, value);
                let answer = world.send(said, (method, &path), Some(&body)).await;
                let (status, problem) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default());
                let detail = problem["detail"].as_str().unwrap_or_default();
                let about = at.last().map(String::as_str).unwrap_or_default();
                // An enrolment is refused as a whole where it is not signed as it stands.
                let is_told = is_all || template.ends_with("/enroll") || is_about(about, detail);
                if status != if is_all { 413 } else { 422 } || !is_told {
                    wrong.push(format!("{method} {template} {}: {status} {detail}", at.join(".")));
                }
                tried += 1;
            }
            for parameter in said["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                if parameter["in"] != "query" {
                    continue;
                }
                for Beyond { value, .. } in
                    beyond(&world.document, &[], &parameter["schema"]).into_iter().filter(|beyond| !beyond.is_all)
                {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    // Which endpoints are meant has to be said.
                    let whose = if template.ends_with("/endpoints") {
                        format!("&agreement={}", pair.agreement)
                    } else {
                        String::new()
                    };
                    let asked = format!("{path}?{name}={value}{whose}");
                    let answer = world.send(said, (method, &asked), None).await;
                    let (status, problem) =
                        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default());
                    let detail = problem["detail"].as_str().unwrap_or_default();
                    if status != 422 || !is_about(name, detail) {
                        wrong.push(format!("{method} {template}?{name}: {status} {detail}"));
                    }
                    tried += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "what the document does not allow is not refused:\n{}", wrong.join("\n"));
    assert!(tried > 250, "only {tried} values were beyond a bound");
}
