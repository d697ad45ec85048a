//! The headers of requests and answers in the document. What holds for whole kinds of operations is said here, once: an operation
//! that is added has them without a word.

use serde_json::{Map, Value, json};

/// Objects that have an entity tag wherever they are the answer.
const TAGGED: &[&str] = &[
    "Agreement",
    "Channel",
    "Connection",
    "Device",
    "DirectoryEntry",
    "GatewayAudit",
    "Grant",
    "Link",
    "Organization",
    "PeeringRequest",
    "Relay",
    "Server",
    "ServerShare",
    "User",
];

/// Changes of one object that is there and has a tag; the others refuse a condition.
const CONDITIONAL: &[(&str, &str)] = &[
    ("post", "/api/v1/agreements/{id}/{act}"),
    ("delete", "/api/v1/channels/{id}"),
    ("patch", "/api/v1/channels/{id}"),
    ("post", "/api/v1/connections/{id}/accept"),
    ("post", "/api/v1/connections/{id}/approve"),
    ("post", "/api/v1/connections/{id}/decline"),
    ("post", "/api/v1/connections/{id}/enter"),
    ("post", "/api/v1/connections/{id}/leave"),
    ("post", "/api/v1/connections/{id}/rotate-secret"),
    ("post", "/api/v1/connections/{id}/{act}"),
    ("delete", "/api/v1/devices/{id}"),
    ("patch", "/api/v1/devices/{id}"),
    ("post", "/api/v1/grants/{id}/approve"),
    ("post", "/api/v1/grants/{id}/{act}"),
    ("delete", "/api/v1/links/{id}"),
    ("delete", "/api/v1/organization"),
    ("patch", "/api/v1/organization"),
    ("post", "/api/v1/peering-requests/{id}/{act}"),
    ("patch", "/api/v1/relays/{id}"),
    ("post", "/api/v1/server-shares/{id}/end"),
    ("post", "/api/v1/server-shares/{id}/open"),
    ("delete", "/api/v1/servers/{id}"),
    ("post", "/api/v1/servers/{id}/gateway-audit/acknowledge"),
    ("delete", "/api/v1/tenant/organizations/{id}"),
    ("delete", "/api/v1/users/{id}"),
    ("patch", "/api/v1/users/{id}"),
];

/// It changes nothing, so there is nothing to keep it from doing twice.
const KEYLESS: &str = "/api/v1/device-tokens/introspect";

/// Says of every operation which headers it takes and answers with.
pub(super) fn declare(document: &mut Value) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    for (path, item) in paths {
        let Some(item) = item.as_object_mut() else { continue };
        for (method, operation) in item {
            if let Some(operation) = operation.as_object_mut() {
                declare_one(method, path, operation);
            }
        }
    }
}

fn declare_one(method: &str, path: &str, operation: &mut Map<String, Value>) {
    let has_key = method != "get" && path != KEYLESS && !is_public(operation);
    if has_key {
        takes(
            operation,
            "Idempotency-Key",
            200,
            "Sent again with the same key, the request is done once, for 24 hours.",
        );
    }
    if CONDITIONAL.contains(&(method, path)) {
        takes(
            operation,
            "If-Match",
            8_192,
            "Entity tags: the change is made only if the object has one of them (else 412).",
        );
    }
    let Some(answers) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, answer) in answers {
        if status == "default" {
            let what = "Seconds to wait before the request is sent again; with 429 and 503.";
            gives(answer, "Retry-After", json!({"type": "integer", "minimum": 1}), what);
        }
        if !status.starts_with('2') {
            continue;
        }
        if is_tagged(answer) {
            gives(answer, "ETag", json!({"type": "string"}), "The object as it is shown, for If-Match.");
        }
        if has_key {
            let what = "The answer was given before, to a request with the same Idempotency-Key.";
            gives(answer, "Idempotency-Replayed", json!({"type": "string", "enum": ["true"]}), what);
        }
    }
}

/// Whether everybody may ask: the requirement that requires nothing.
fn is_public(operation: &Map<String, Value>) -> bool {
    let ways = operation.get("security").and_then(Value::as_array);
    ways.is_some_and(|ways| ways.iter().all(|way| way.as_object().is_some_and(Map::is_empty)))
}

fn is_tagged(answer: &Value) -> bool {
    let schema = answer.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
    let name = schema.and_then(|schema| schema.strip_prefix("#/components/schemas/"));
    name.is_some_and(|name| TAGGED.contains(&name))
}

fn takes(operation: &mut Map<String, Value>, name: &str, longest: u32, what: &str) {
    let schema = json!({"type": "string", "minLength": 1, "maxLength": longest});
    let parameter = json!({"name": name, "in": "header", "description": what, "required": false, "schema": schema});
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.push(parameter);
    }
}

fn gives(answer: &mut Value, name: &str, schema: Value, what: &str) {
    let Some(answer) = answer.as_object_mut() else { return };
    let headers = answer.entry("headers").or_insert_with(|| json!({}));
    if let Some(headers) = headers.as_object_mut() {
        headers.insert(name.to_owned(), json!({"description": what, "required": false, "schema": schema}));
    }
}
