//! The bounds of what is sent: the length of each text, the range of each number, the number of entries of each list, by the constants
//! that the service refuses by. One test goes through the document and names the field that has none, another one sends what is just
//! beyond each.

use std::collections::BTreeSet;

use gateway_proto::{
    api::{
        platform::{MAX_CONNECTIONS_PER_SERVER, MAX_GRANTS_PER_CHANNEL},
        values::{LAST_MOMENT, MAX_NAME, MAX_STREAMS, MAX_TEXT},
    },
    device_token::MAX_DEVICE_TOKEN_SECS,
    limits::{MAX_BYTES_PER_SECOND, MAX_RECEIVE_TIMEOUT_SECS, MIN_BYTES_PER_SECOND, MIN_RECEIVE_TIMEOUT_SECS},
};
use serde_json::{Map, Value, json};

use super::super::MAX_BODY;
use crate::service::{
    MAX_LIMIT,
    bounds::{
        ADMIN_STALENESS_SECS, API_TOKEN_SECS, CHALLENGE, ENROLLMENT_CODE_SECS, ENTERED_SECS, INVITATION_SECS,
        MAX_AUDIENCE, MAX_BEHAVIORS_OF_DEVICE, MAX_EMAIL, MAX_NOTE, MAX_SCOPES, MAX_SEARCH, MAX_STUN, MAX_VERSION,
        MAX_WORD, MIN_DEVICE_TOKEN_SECS, PASSWORD, PLATFORM_TOKEN_OVERLAP_SECS, POLICY_KEY_LEAD_SECS,
        SECRET_OVERLAP_SECS, STALENESS_SECS,
    },
};

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

/// A length of time that the service has bounds for.
const fn span((least, _, most): (u64, u64, u64)) -> Bound {
    Number(least, most)
}

/// What is compared with something, or handed on, and not kept: as long as a body may be.
const ANY: Bound = Text(0, MAX_BODY);
/// A name where there may be none.
const NAME: Bound = Text(1, MAX_NAME);
const WORDS: Bound = Text(0, MAX_TEXT);
/// The most are bytes: whatever has more characters has more bytes, too.
const NEW_PASSWORD: Bound = Text(PASSWORD.0, PASSWORD.1);
const EMAIL: Bound = Text(3, MAX_EMAIL);
const DEVICE_TOKEN: Bound = Number(MIN_DEVICE_TOKEN_SECS, MAX_DEVICE_TOKEN_SECS);
const PORT: Bound = Number(0, 65_535);
const COUNT: Bound = Number(0, u32::MAX as u64);

/// By `Schema.field`, by the name of a schema that is a text itself, or by the name of a field or query parameter wherever it is.
const BOUNDS: &[(&str, Bound)] = &[
    ("AcceptInvitation.password", NEW_PASSWORD),
    ("AcknowledgeAudit.note", Text(0, MAX_NOTE)),
    ("ChangePassword.new", NEW_PASSWORD),
    ("CreateApiToken.valid_secs", span(API_TOKEN_SECS)),
    ("CreateDeviceToken.valid_secs", DEVICE_TOKEN),
    ("CreateEnrollmentCode.valid_secs", span(ENROLLMENT_CODE_SECS)),
    ("CreateGrant.staleness_secs", Number(STALENESS_SECS.0, STALENESS_SECS.1)),
    ("CreateInvitation.valid_secs", span(INVITATION_SECS)),
    ("CreateOrganization.owner_password", NEW_PASSWORD),
    ("CreateUser.password", NEW_PASSWORD),
    ("EnrollRequest.version", Text(0, MAX_VERSION)),
    ("EnterAdmin.valid_secs", span(ENTERED_SECS)),
    ("Hidden", ANY),
    ("Login.email", ANY),
    ("OfferAdmin.staleness_secs", Number(ADMIN_STALENESS_SECS.0, ADMIN_STALENESS_SECS.1)),
    ("PutTier.max_connections_per_server", Number(0, MAX_CONNECTIONS_PER_SERVER as u64)),
    ("PutTier.max_grants_per_channel", Number(0, MAX_GRANTS_PER_CHANNEL as u64)),
    ("RotatePlatformToken.overlap_secs", span(PLATFORM_TOKEN_OVERLAP_SECS)),
    ("RotateSecret.overlap_secs", Number(SECRET_OVERLAP_SECS.0, SECRET_OVERLAP_SECS.1)),
    ("UpdateChannel.engine_channel", ANY),
    ("account", Text(1, 64)),
    ("act", ANY),
    ("actor", ANY),
    ("address", Text(1, 64)),
    ("audience", Text(1, MAX_AUDIENCE)),
    ("behavior", Text(1, 40)),
    ("behaviors", List(MAX_BEHAVIORS_OF_DEVICE, 40)),
    ("bytes_per_second", Number(MIN_BYTES_PER_SECOND, MAX_BYTES_PER_SECOND)),
    ("challenge", Text(CHALLENGE, CHALLENGE)),
    ("cursor", ANY),
    ("default_secs", DEVICE_TOKEN),
    ("description", WORDS),
    ("email", EMAIL),
    ("engine", Text(1, 64)),
    ("engine_channel", ANY),
    ("error", ANY),
    ("expires_at", Number(0, LAST_MOMENT)),
    ("from", Text(10, 10)),
    ("iss", ANY),
    ("key", Text(1, 128)),
    ("lead_secs", span(POLICY_KEY_LEAD_SECS)),
    ("limit", Number(1, MAX_LIMIT as u64)),
    ("loopback_port", Number(1, 65_535)),
    ("max_channels_per_server", COUNT),
    ("max_peers", COUNT),
    ("max_secs", DEVICE_TOKEN),
    ("max_servers", COUNT),
    ("max_streams", Number(1, MAX_STREAMS as u64)),
    ("message", WORDS),
    ("method", ANY),
    ("name", NAME),
    ("object", ANY),
    ("organization", ANY),
    ("owner_email", EMAIL),
    ("owner_name", NAME),
    ("port", PORT),
    ("proof", ANY),
    ("provider", ANY),
    ("public_description", WORDS),
    ("public_name", NAME),
    ("receive_timeout_secs", Number(MIN_RECEIVE_TIMEOUT_SECS as u64, MAX_RECEIVE_TIMEOUT_SECS as u64)),
    ("region", Text(0, MAX_WORD)),
    ("scopes", List(MAX_SCOPES, 40)),
    ("search", Text(0, MAX_SEARCH)),
    ("secret", ANY),
    ("sender_port", PORT),
    ("signature", Text(128, 128)),
    ("since", Number(0, LAST_MOMENT)),
    ("stun", List(MAX_STUN.0, MAX_STUN.1)),
    ("tier", Text(1, MAX_WORD)),
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
