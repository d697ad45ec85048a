//! Whether an answer is what the document says it is: as much of JSON Schema as the document uses.

use serde_json::Value;

/// Why a value is not of a schema of the document; none: it is.
pub(super) fn fault(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    look(document, schema, value, false)
}

/// The same; a part of a schema does not know the fields of the others.
fn look(document: &Value, schema: &Value, value: &Value, is_part: bool) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let Some(schema) = document.pointer(name.trim_start_matches('#')) else {
            return Some(format!("{name} is nowhere"));
        };
        return look(document, schema, value, is_part);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        if let Some(why) = look(document, part, value, true) {
            return Some(why);
        }
    }
    let kinds = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    if kinds.is_some_and(|kinds| kinds.iter().all(|kind| fault(document, kind, value).is_some())) {
        return Some(format!("{value} is none of {schema}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Some(format!("{value} is none of {values:?}"));
    }
    of_kind(&schema["type"], value)
        .or_else(|| in_bounds(schema, value))
        .or_else(|| fields(document, schema, value, is_part))
        .or_else(|| entries(document, schema, value))
}

fn of_kind(kind: &Value, value: &Value) -> Option<String> {
    let is = |kind: &Value| match kind.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(_) | None => false,
    };
    let fits = match kind {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is),
        Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Object(_) => is(kind),
    };
    (!fits).then(|| format!("{value} is no {kind}"))
}

fn in_bounds(schema: &Value, value: &Value) -> Option<String> {
    let length = value.as_str().map(|text| text.chars().count() as u64);
    let above = |field: &str, number: Option<u64>| {
        schema[field].as_u64().zip(number).is_some_and(|(most, number)| number > most)
    };
    let below = |field: &str, number: Option<u64>| {
        schema[field].as_u64().zip(number).is_some_and(|(least, number)| number < least)
    };
    let number = value.as_u64();
    let is_out = above("maxLength", length)
        || below("minLength", length)
        || above("maximum", number)
        || below("minimum", number);
    is_out.then(|| format!("{value} is out of the bounds of {schema}"))
}

fn fields(document: &Value, schema: &Value, value: &Value, is_part: bool) -> Option<String> {
    let object = value.as_object()?;
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for field in required {
        if !object.contains_key(field) {
            return Some(format!("{field} is missing in {value}"));
        }
    }
    let known = schema["properties"].as_object();
    for (field, value) in object {
        if let Some(why) = known.and_then(|known| known.get(field)).and_then(|schema| fault(document, schema, value)) {
            return Some(format!("{field}: {why}"));
        }
    }
    // A field that nobody was told of is one that was forgotten in the document.
    let is_closed = !is_part && known.is_some() && schema.get("additionalProperties").is_none();
    let unknown = object.keys().find(|field| is_closed && !known.is_some_and(|known| known.contains_key(*field)));
    unknown.map(|field| format!("{field} is not in the document"))
}

fn entries(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    value.as_array()?.iter().find_map(|entry| fault(document, &schema["items"], entry))
}

#[test]
fn what_is_not_of_a_schema_is_told() {
    use serde_json::json;

    let document = json!({"components": {"schemas": {"A": {
        "type": "object", "required": ["id"],
        "properties": {"id": {"type": "string", "maxLength": 2}, "n": {"oneOf": [{"type": "null"}, {"type": "integer"}]}},
    }}}});
    let a = json!({"$ref": "#/components/schemas/A"});
    let list = json!({"type": "array", "items": a});
    for (value, is_sound) in [
        (json!([{"id": "ab"}]), true),
        (json!([{"id": "ab", "n": null}, {"id": "", "n": 1}]), true),
        (json!([{}]), false),
        (json!([{"id": 1}]), false),
        (json!([{"id": "abc"}]), false),
        (json!([{"id": "ab", "n": "1"}]), false),
        (json!([{"id": "ab", "more": 1}]), false),
        (json!({"id": "ab"}), false),
    ] {
        assert_eq!(fault(&document, &list, &value).is_none(), is_sound, "{value}");
    }
}
