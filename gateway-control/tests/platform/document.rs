//! The OpenAPI document says what the API does: headers, schemes and bounds, for every operation there is.

use serde_json::{Value, json};

fn document() -> Value {
    serde_json::from_str(&gateway_control::http::document()).unwrap()
}

/// Every operation: path, method, and what is said of it.
fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    items.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, said)| (path, method, said)))
}

fn has_parameter(operation: &Value, name: &str) -> bool {
    let parameters = operation["parameters"].as_array();
    parameters.into_iter().flatten().any(|parameter| parameter["name"] == name && parameter["in"] == "header")
}

#[test]
fn every_operation_says_which_headers_it_takes_and_answers_with() {
    let document = document();
    let (mut keyed, mut conditional, mut tagged) = (0, 0, 0);
    for (path, method, operation) in operations(&document) {
        let about = format!("{method} {path}");
        let is_public = operation["security"] == json!([{}]);
        let changes = method != "get" && path != "/api/v1/device-tokens/introspect";
        let has_key = has_parameter(operation, "Idempotency-Key");
        assert_eq!(has_key, changes && !is_public, "{about}: Idempotency-Key");
        keyed += usize::from(has_key);
        let is_conditional = has_parameter(operation, "If-Match");
        assert!(!is_conditional || has_key, "{about}: whoever may make it a condition may send it twice");
        conditional += usize::from(is_conditional);
        let answers = operation["responses"].as_object().unwrap();
        let retry = &answers["default"]["headers"]["Retry-After"]["schema"];
        assert_eq!(retry["type"], "integer", "{about}: Retry-After");
        for (status, answer) in answers.iter().filter(|(status, _)| status.starts_with('2')) {
            let replayed = answer["headers"].get("Idempotency-Replayed").is_some();
            assert_eq!(replayed, has_key, "{about} {status}: Idempotency-Replayed");
            tagged += usize::from(answer["headers"].get("ETag").is_some());
        }
    }
    assert!(keyed > 50 && conditional > 20 && tagged > 30, "{keyed} {conditional} {tagged}");
}

#[test]
fn every_scheme_is_described_and_every_one_that_is_named_is_known() {
    let document = document();
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    for scheme in ["session", "operator", "gateway"] {
        assert!(schemes[scheme]["description"].is_string(), "{scheme}");
    }
    let mut named = Vec::new();
    for (path, method, operation) in operations(&document) {
        for way in operation["security"].as_array().into_iter().flatten() {
            for scheme in way.as_object().unwrap().keys() {
                assert!(schemes.contains_key(scheme), "{method} {path}: {scheme}");
                named.push(scheme.clone());
            }
        }
    }
    assert!(named.iter().any(|scheme| scheme == "gateway"), "gateways ask about device tokens");
}

/// The names of the schemas that a value refers to.
fn refers_to(value: &Value, names: &mut Vec<String>) {
    if let Some(name) = value["$ref"].as_str() {
        names.push(name.rsplit('/').next().unwrap().to_owned());
    }
    if let Some(fields) = value.as_object() {
        fields.values().for_each(|value| refers_to(value, names));
    }
    value.as_array().into_iter().flatten().for_each(|value| refers_to(value, names));
}

fn is_of(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
}

/// What lacks a bound in a schema, by name.
fn unbound(name: &str, schema: &Value, wrong: &mut Vec<String>) {
    let is_word = schema.get("enum").is_some() || schema.get("pattern").is_some() || schema.get("const").is_some();
    let lacks = |field: &str| schema.get(field).is_none();
    if is_of(schema, "string") && !is_word && lacks("maxLength")
        || is_of(schema, "integer") && (lacks("minimum") || lacks("maximum"))
        || is_of(schema, "array") && lacks("maxItems")
    {
        wrong.push(format!("{name}: {schema}"));
    }
    for part in ["oneOf", "anyOf", "allOf"] {
        schema[part].as_array().into_iter().flatten().for_each(|part| unbound(name, part, wrong));
    }
    if is_of(schema, "array") {
        unbound(&format!("{name}[]"), &schema["items"], wrong);
    }
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        unbound(&format!("{name}.{field}"), schema, wrong);
    }
}

#[test]
fn every_field_that_can_be_sent_says_how_long_or_how_large_it_may_be() {
    let document = document();
    let (mut names, mut seen, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for (path, method, operation) in operations(&document) {
        refers_to(&operation["requestBody"], &mut names);
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            if parameter["in"] != "path" {
                unbound(&format!("{method} {path} {}", parameter["name"]), &parameter["schema"], &mut wrong);
            }
        }
    }
    while let Some(name) = names.pop() {
        if !seen.contains(&name) {
            let schema = &document["components"]["schemas"][&name];
            refers_to(schema, &mut names);
            unbound(&name, schema, &mut wrong);
            seen.push(name);
        }
    }
    assert!(wrong.is_empty(), "say in http/openapi/bounds.rs what is accepted:\n{}", wrong.join("\n"));
    assert!(seen.len() > 40, "{seen:?}");
    let name = &document["components"]["schemas"]["CreateServer"]["properties"]["name"];
    assert_eq!((&name["minLength"], &name["maxLength"]), (&json!(1), &json!(120)));
    let servers = &document["paths"]["/api/v1/servers"]["get"]["parameters"];
    let limit = servers.as_array().unwrap().iter().find(|parameter| parameter["name"] == "limit").unwrap();
    assert_eq!((&limit["schema"]["minimum"], &limit["schema"]["maximum"]), (&json!(1), &json!(200)));
}
