//! Requests made from the OpenAPI document, right, nearly right and wrong: whatever comes, the answer is one of the
//! documented kind, and never an internal error; what was done is answered in the documented form.

mod schema;

use serde_json::{Map, Value, json};

use super::harness::Control;

/// Requests of each operation and kind of caller.
const EACH: u64 = 12;
/// These would end the session or the operator token that the others need, or cost a password hash each.
const LEFT_OUT: &[&str] = &[
    "/api/v1/sessions",
    "/api/v1/me/password",
    "/api/v1/organizations",
    "/api/v1/invitations/accept",
    "/api/v1/platform-tokens/{kind}/rotate",
];

/// A small generator with a fixed seed: a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }

    fn text(&mut self) -> String {
        let odd =
            ["", " ", "a", "Ärzte\u{202e}", "\0", "x\ny", "%00", "../..", "'; DROP TABLE users; --", "127.0.0.1:6661"];
        match self.roll(12) {
            0 => "x".repeat(70_000),
            1 => "9".repeat(40),
            _ => (*self.pick(&odd)).to_owned(),
        }
    }

    fn anything(&mut self, depth: u32) -> Value {
        match self.roll(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(u64::MAX),
            4 => json!(1.5e300),
            5 => json!(self.text()),
            6 => json!([self.anything(depth - 1)]),
            _ => json!({"name": self.anything(depth - 1)}),
        }
    }
}

/// What the document describes, and what there is to ask about.
struct World {
    document: Value,
    /// Ids that exist, the own ones and those of others.
    ids: Vec<String>,
}

impl World {
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => self.resolve(self.document.pointer(name.trim_start_matches('#')).unwrap()),
            None => schema,
        }
    }

    /// A value of the schema, now and then one that is not.
    fn value(&self, dice: &mut Dice, schema: &Value, depth: u32) -> Value {
        let schema = self.resolve(schema);
        if depth == 0 || dice.roll(8) == 0 {
            return dice.anything(2);
        }
        if let Some(kinds) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()).or(schema["allOf"].as_array()) {
            let kind = dice.pick(kinds).clone();
            return self.value(dice, &kind, depth - 1);
        }
        if let Some(values) = schema["enum"].as_array() {
            return dice.pick(values).clone();
        }
        let kinds = schema["type"].as_array();
        let kind = kinds.map_or_else(|| schema["type"].clone(), |kinds| dice.pick(kinds).clone());
        match kind.as_str() {
            Some("object") => {
                let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
                let mut object = Map::new();
                for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                    if dice.roll(10) > 0 && (required.iter().any(|field| **field == *name) || dice.roll(2) == 0) {
                        object.insert(name.clone(), self.value(dice, schema, depth - 1));
                    }
                }
                if dice.roll(12) == 0 {
                    object.insert("organization_id".to_owned(), json!(dice.pick(&self.ids)));
                }
                Value::Object(object)
            }
            Some("array") => json!([self.value(dice, &schema["items"], depth - 1)]),
            Some("integer") => json!(*dice.pick(&[0_i64, 1, 2, 80, 65_536, -1, i64::MAX])),
            Some("number") => json!(0.5),
            Some("boolean") => json!(dice.roll(2) == 0),
            Some("string") if dice.roll(3) > 0 => json!(dice.pick(&self.ids)),
            Some("string") => json!(dice.text()),
            _ => dice.anything(1),
        }
    }

    /// The path and query of an operation with values.
    fn path(&self, dice: &mut Dice, path: &str, operation: &Value) -> String {
        let mut path = path.to_owned();
        let mut query = Vec::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let value = self.value(dice, &parameter["schema"], 3);
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let value: String = if dice.roll(4) == 0 { value } else { dice.pick(&self.ids).clone() };
            let value: String =
                url::form_urlencoded::byte_serialize(value.chars().take(500).collect::<String>().as_bytes()).collect();
            if parameter["in"] == "path" {
                path = path.replace(&format!("{{{name}}}"), &value.replace('+', "%20"));
            } else if parameter["in"] == "query" && dice.roll(2) == 0 {
                query.push(format!("{name}={value}"));
            }
        }
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    /// Whether an answer has the status, the headers and the form that the document has for it.
    async fn is_documented(&self, about: &str, operation: &Value, answer: reqwest::Response) {
        let said = &operation["responses"][answer.status().as_str()];
        assert!(said.is_object(), "{about}: the document has no such answer");
        let is_tagged = answer.headers().contains_key("etag");
        // What is given again may have been kept without it.
        let is_again = answer.headers().contains_key("idempotency-replayed");
        assert!(is_again || is_tagged == said["headers"].get("ETag").is_some(), "{about}: ETag is {is_tagged}");
        let schema = &said["content"]["application/json"]["schema"];
        let bytes = answer.bytes().await.unwrap();
        if schema.is_null() {
            return;
        }
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(schema::fault(&self.document, schema, &value), None, "{about}");
    }
}

#[tokio::test]
async fn whatever_the_document_describes_is_answered_and_never_with_an_internal_error() {
    let control = Control::start_with("[limits]\nrequests_per_second = 1000000").await;
    let pair = control.pair().await;
    let connection = pair.connection("Orders").await;
    let channel = pair.lab.channel(&pair.lab_server, "Results").await;
    let document: Value = control.request("GET", "/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    let ids = vec![
        pair.hospital.id.clone(),
        pair.lab.id.clone(),
        pair.hospital_server.id.to_string(),
        pair.lab_server.id.to_string(),
        pair.agreement.clone(),
        channel.id.to_string(),
        connection,
        pair.hospital.session.user.id.to_string(),
        "srv_00000000-0000-7000-8000-000000000000".to_owned(),
    ];
    let world = World { document, ids };
    // People who are not the owner whose session the fuzzing may end or whose user it may remove.
    let (admin, viewer) = (pair.hospital.user("admin").await, pair.hospital.user("viewer").await);
    let callers = [
        Some(format!("Bearer {}", admin.token)),
        Some(format!("Bearer {}", viewer.token)),
        Some(format!("Operator {}", control.operator)),
        Some("Bearer gws_00".to_owned()),
        None,
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut asked, mut done) = (0, 0);
    for (path, item) in world.document["paths"].as_object().unwrap() {
        if LEFT_OUT.contains(&path.as_str()) {
            continue;
        }
        for (method, operation) in item.as_object().unwrap().iter().filter(|(_, operation)| operation.is_object()) {
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            for caller in &callers {
                // Whoever is not let in is not let in: once is enough.
                let rounds = if caller.as_ref().is_none_or(|caller| caller.ends_with("_00")) { 1 } else { EACH };
                for _ in 0..rounds {
                    let target = world.path(&mut dice, path, operation);
                    let mut request = control.request(&method.to_uppercase(), &target);
                    if let Some(caller) = caller {
                        request = request.header("Authorization", caller);
                    }
                    if !body.is_null() {
                        request = request.json(&world.value(&mut dice, body, 6));
                    }
                    if dice.roll(10) == 0 {
                        request = request.header("If-Match", "\"0\"").header("Idempotency-Key", "key");
                    }
                    let answer = request.send().await.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
                    asked += 1;
                    let status = answer.status();
                    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
                    let about = format!("{method} {target} → {status}");
                    assert!(answer.headers().contains_key("x-request-id"), "{about}");
                    assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{about}");
                    assert!(status.as_u16() < 500 || status == 503, "{about}: {:?}", answer.text().await);
                    if status.is_success() {
                        done += 1;
                        world.is_documented(&about, operation, answer).await;
                        continue;
                    }
                    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{about}");
                    let problem: Value = answer.json().await.unwrap();
                    let code = problem["code"].as_str().unwrap();
                    assert!(gateway_control::http::CODES.iter().any(|known| known.code == code), "{about}: {code}");
                }
            }
        }
    }
    assert!(asked > 1_000 && done > 50, "{asked} requests, {done} of them done");
}
