//! Examples of bodies, made from their schemas, so that none can be missing or out of date.

use serde_json::{Map, Value, json};

/// Gives an example to each body that has none.
pub(super) fn add(document: &mut Value) {
    let schemas = document.clone();
    let Some(paths) = document["paths"].as_object_mut() else { return };
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    for operation in operations {
        if let Some(body) = operation.get_mut("requestBody") {
            add_to_body(&schemas, body);
        }
        for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            add_to_body(&schemas, response);
        }
    }
}

fn add_to_body(document: &Value, body: &mut Value) {
    for (_, content) in body.get_mut("content").and_then(Value::as_object_mut).into_iter().flatten() {
        if content.get("example").is_none() {
            content["example"] = example(document, "", &content["schema"]);
        }
    }
}

/// An example of the property `name`.
fn example(document: &Value, name: &str, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        return document.pointer(reference).map_or(Value::Null, |schema| example(document, name, schema));
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.first().cloned().unwrap_or_default();
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let told = alternatives.iter().find(|one| one["type"] != "null");
        return told.map_or(Value::Null, |one| example(document, name, one));
    }
    let mut object = Map::new();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        object.extend(example(document, name, part).as_object().cloned().unwrap_or_default());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        object.insert(name.clone(), example(document, name, property));
    }
    if !object.is_empty() {
        return Value::Object(object);
    }
    known(name).unwrap_or_else(|| match type_of(schema) {
        "array" => json!([example(document, singular(name), &schema["items"])]),
        "boolean" => json!(true),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        "object" => json!({}),
        _ => match schema["format"].as_str() {
            Some("uuid") => json!("01a20d60-fef6-7ad1-ae50-7286a391e4c4"),
            Some("date-time") => json!("2026-11-27T12:00:00Z"),
            _ => json!("text"),
        },
    })
}

/// `null` beside another type means that the property may be missing.
fn type_of(schema: &Value) -> &str {
    match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        name => name.as_str(),
    }
    .unwrap_or_default()
}

fn singular(name: &str) -> &str {
    name.strip_suffix('s').unwrap_or(name)
}

/// Values that say more than their type does. No secret is real.
fn known(name: &str) -> Option<Value> {
    Some(match name {
        "access_token" | "token" => json!("the-access-token-of-60-characters"),
        "refresh_token" => json!("the-refresh-token-of-60-characters"),
        "client_id" => json!("the-client-id"),
        "client_secret" | "password" => json!("the-client-secret"),
        "key" => json!("the-api-key-of-64-hex-characters"),
        "webhook_secret" => json!("whsec_the-signing-secret"),
        "key_hint" | "hint" => json!("4f2a"),
        "allowed_ip" | "cidr" => json!("198.51.100.0/24"),
        "client_ip" | "last_used_ip" | "hop" => json!("198.51.100.7"),
        "scope" => json!("payments.read"),
        "webhook_url" => json!("https://shop.example/webhooks"),
        "email" => json!("ann@shop.example"),
        "name" => json!("Web shop"),
        "gateway" => json!("worldpay_corporate"),
        "grant_type" => json!("client_credentials"),
        "token_type" => json!("Bearer"),
        "token_type_hint" => json!("access_token"),
        "expires_in" => json!(3600),
        "expire_time" => json!("2026-11-27 13:00:00"),
        "overlap_secs" => json!(86_400),
        "action" => json!("api_key.created"),
        "object_kind" => json!("api_key"),
        "type" => json!("api_key.updated"),
        "method" => json!("POST"),
        "path" => json!("/api/authorize"),
        "error" => json!("invalid_client"),
        "leaked" | "disabled" | "elsewhere" => json!(false),
        "next_cursor" | "reason" | "revoked_reason" => Value::Null,
        _ => return None,
    })
}
