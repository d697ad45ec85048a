//! The bounds of what is sent: the length of each text, the range of each number, the number of entries of each list. A test goes
//! through the document and names the field that has none.

use std::collections::BTreeSet;

use gateway_proto::{
    api::{
        platform::{MAX_CONNECTIONS_PER_SERVER, MAX_GRANTS_PER_CHANNEL},
        values::{LAST_MOMENT, MAX_NAME, MAX_STREAMS, MAX_TEXT},
    },
    device_token::MAX_DEVICE_TOKEN_SECS,
};
use serde_json::{Map, Value, json};

use super::super::MAX_BODY;
use crate::service::MAX_LIMIT;

/// What is accepted.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// Characters of a text.
    Text(usize, usize),
    /// A number.
    Number(u64, u64),
    /// Entries of a list, and the characters of each.
    List(usize, usize),
}

use Bound::{List, Number, Text};

const DAY: u64 = 24 * 3600;
/// What is compared with something, or handed on, and not kept: as long as a body may be.
const ANY: Bound = Text(0, MAX_BODY);
/// A name where there may be none.
const NAME: Bound = Text(1, MAX_NAME);
const WORDS: Bound = Text(0, MAX_TEXT);
const PASSWORD: Bound = Text(12, 1_024);
const PORT: Bound = Number(0, 65_535);
const COUNT: Bound = Number(0, u32::MAX as u64);

/// By `Schema.field`, by the name of a schema that is a text itself, or by the name of a field or query parameter wherever it is.
const BOUNDS: &[(&str, Bound)] = &[
    ("AcceptInvitation.password", PASSWORD),
    ("AcknowledgeAudit.note", Text(0, 300)),
    ("ChangePassword.new", PASSWORD),
    ("CreateApiToken.valid_secs", Number(60, 366 * DAY)),
    ("CreateDeviceToken.valid_secs", Number(60, MAX_DEVICE_TOKEN_SECS)),
    ("CreateEnrollmentCode.valid_secs", Number(60, 7 * DAY)),
    ("CreateGrant.staleness_secs", Number(60, 30 * DAY)),
    ("CreateInvitation.valid_secs", Number(60, 30 * DAY)),
    ("CreateOrganization.owner_password", PASSWORD),
    ("CreateUser.password", PASSWORD),
    ("EnrollRequest.version", Text(0, 60)),
    ("EnterAdmin.valid_secs", Number(60, DAY)),
    ("Hidden", ANY),
    ("Login.email", ANY),
    ("OfferAdmin.staleness_secs", Number(60, DAY)),
    ("PutTier.max_connections_per_server", Number(0, MAX_CONNECTIONS_PER_SERVER as u64)),
    ("PutTier.max_grants_per_channel", Number(0, MAX_GRANTS_PER_CHANNEL as u64)),
    ("RotatePlatformToken.overlap_secs", Number(0, 30 * DAY)),
    ("RotateSecret.overlap_secs", Number(60, 60 * DAY)),
    ("UpdateChannel.engine_channel", ANY),
    ("account", Text(1, 64)),
    ("act", ANY),
    ("actor", ANY),
    ("address", Text(1, 64)),
    ("audience", Text(1, 120)),
    ("behavior", Text(1, 40)),
    ("behaviors", List(50, 40)),
    ("challenge", Text(64, 64)),
    ("cursor", ANY),
    ("default_secs", Number(60, MAX_DEVICE_TOKEN_SECS)),
    ("description", WORDS),
    ("email", Text(3, 254)),
    ("engine", Text(1, 64)),
    ("engine_channel", ANY),
    ("error", ANY),
    ("expires_at", Number(0, LAST_MOMENT)),
    ("from", Text(10, 10)),
    ("iss", ANY),
    ("key", Text(1, 128)),
    ("lead_secs", Number(60, 30 * DAY)),
    ("limit", Number(1, MAX_LIMIT as u64)),
    ("loopback_port", Number(1, 65_535)),
    ("max_channels_per_server", COUNT),
    ("max_peers", COUNT),
    ("max_secs", Number(60, MAX_DEVICE_TOKEN_SECS)),
    ("max_servers", COUNT),
    ("max_streams", Number(1, MAX_STREAMS as u64)),
    ("message", WORDS),
    ("method", ANY),
    ("name", NAME),
    ("object", ANY),
    ("organization", ANY),
    ("owner_email", Text(3, 254)),
    ("owner_name", NAME),
    ("port", PORT),
    ("proof", ANY),
    ("provider", ANY),
    ("public_description", WORDS),
    ("public_name", NAME),
    ("region", Text(0, 40)),
    ("scopes", List(64, 40)),
    ("search", Text(0, 120)),
    ("secret", ANY),
    ("sender_port", PORT),
    ("signature", Text(128, 128)),
    ("since", Number(0, LAST_MOMENT)),
    ("stun", List(4, 260)),
    ("tier", Text(1, 40)),
    ("tls_pin", Text(0, 128)),
    ("to", Text(10, 10)),
    ("until", Number(0, LAST_MOMENT)),
    ("url", ANY),
    ("user_port", PORT),
];

/// Says of every field that can be sent what is accepted.
pub(super) fn declare(document: &mut Value) {
    let sent = sent(document);
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        for (name, schema) in schemas.iter_mut().filter(|(name, _)| sent.contains(*name)) {
            bind_schema(name, schema);
        }
    }
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    let parameters = operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut()).flatten();
    for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        if let Some(schema) = parameter.get_mut("schema") {
            bind_field("", &name, schema);
        }
    }
}

/// The names of the schemas that a request may hold.
fn sent(document: &Value) -> BTreeSet<String> {
    let mut names = Vec::new();
    let paths = document["paths"].as_object();
    for operation in paths.into_iter().flat_map(Map::values).filter_map(Value::as_object).flat_map(Map::values) {
        named_in(&operation["requestBody"], &mut names);
    }
    let mut sent = BTreeSet::new();
    while let Some(name) = names.pop() {
        named_in(&document["components"]["schemas"][&name], &mut names);
        sent.insert(name);
        names.retain(|name| !sent.contains(name));
    }
    sent
}

/// Adds the schemas that a value refers to.
fn named_in(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str);
            names.extend(name.and_then(|name| name.strip_prefix("#/components/schemas/")).map(str::to_owned));
            fields.values().for_each(|value| named_in(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| named_in(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn bind_schema(name: &str, schema: &mut Value) {
    if let Some(bound) = bound_of(name) {
        bind(bound, schema);
    }
    for part in ["oneOf", "anyOf", "allOf"] {
        let parts = schema.get_mut(part).and_then(Value::as_array_mut);
        parts.into_iter().flatten().for_each(|part| bind_schema(name, part));
    }
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (field, schema) in fields.into_iter().flatten() {
        bind_field(name, field, schema);
    }
}

fn bind_field(schema_name: &str, field: &str, schema: &mut Value) {
    let exactly = bound_of(&format!("{schema_name}.{field}"));
    // What is a kind of its own (an id, a word of a list) says itself what is accepted.
    let is_kind = schema.get("enum").is_some() || (schema.get("type").is_none() && exactly.is_none());
    if let Some(bound) = exactly.or_else(|| bound_of(field)).filter(|_| !is_kind) {
        bind(bound, schema);
    }
}

fn bound_of(name: &str) -> Option<Bound> {
    BOUNDS.iter().find(|(known, _)| *known == name).map(|(_, bound)| *bound)
}

fn bind(bound: Bound, schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    match bound {
        Text(least, most) => {
            fields.insert("minLength".to_owned(), json!(least));
            fields.insert("maxLength".to_owned(), json!(most));
        }
        Number(least, most) => {
            fields.insert("minimum".to_owned(), json!(least));
            fields.insert("maximum".to_owned(), json!(most));
        }
        List(most, longest) => {
            fields.insert("maxItems".to_owned(), json!(most));
            if let Some(entry) = fields.get_mut("items") {
                bind(Text(1, longest), entry);
            }
        }
    }
}
