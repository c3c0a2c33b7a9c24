//! The API reference: the OpenAPI document as tables.

use std::collections::BTreeMap;

use serde_json::Value;

/// The operations of a tag.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) anchor: String,
    pub(super) operations: Vec<Operation>,
}

pub(super) struct Operation {
    pub(super) id: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) summary: String,
    pub(super) description: Option<String>,
    /// The ways to authenticate, as text. Empty for a public operation.
    pub(super) access: String,
    pub(super) inputs: Vec<Field>,
    pub(super) outputs: Vec<Field>,
    pub(super) answers: Vec<Answer>,
}

pub(super) struct Field {
    pub(super) name: String,
    pub(super) place: &'static str,
    pub(super) kind: String,
    pub(super) is_required: bool,
    pub(super) meaning: String,
}

pub(super) struct Answer {
    pub(super) status: String,
    pub(super) meaning: String,
}

/// The operations by tag: those for integrators first, then `operations`, then the others by name.
pub(super) fn groups(document: &Value) -> Vec<Group> {
    let mut by_tag: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for (path, item) in members(&document["paths"]) {
        for (method, operation) in members(item) {
            let tag = text(&operation["tags"][0]);
            by_tag.entry(tag).or_default().push(read(document, method, path, operation));
        }
    }
    let mut groups: Vec<Group> = by_tag
        .into_iter()
        .map(|(name, operations)| Group { anchor: name.replace(' ', "-"), name, operations })
        .collect();
    groups.sort_by_key(|group| (group.name != "tokens", group.name.clone()));
    groups
}

fn read(document: &Value, method: &str, path: &str, operation: &Value) -> Operation {
    let answers = members(&operation["responses"])
        .map(|(status, answer)| Answer { status: status.clone(), meaning: text(&answer["description"]) })
        .collect();
    let mut inputs: Vec<Field> =
        items(&operation["parameters"]).map(|one| parameter(document, one)).collect();
    inputs.extend(fields(document, body_schema(&operation["requestBody"])));
    let success = members(&operation["responses"]).find(|(status, _)| status.starts_with('2'));
    Operation {
        id: text(&operation["operationId"]),
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(&operation["summary"]),
        description: operation["description"].as_str().map(str::to_owned),
        access: access(&operation["security"]),
        inputs,
        outputs: success.map(|(_, answer)| fields(document, body_schema(answer))).unwrap_or_default(),
        answers,
    }
}

fn access(security: &Value) -> String {
    let name = |scheme: &String| match scheme.as_str() {
        "api_key" => "X-API-KEY",
        "client" => "a client id and secret as HTTP Basic",
        _ => "a bearer token",
    };
    let ways: Vec<String> = items(security)
        .map(|way| members(way).map(|(scheme, _)| name(scheme)).collect::<Vec<_>>().join(" and "))
        .collect();
    ways.join(", or ")
}

fn parameter(document: &Value, parameter: &Value) -> Field {
    let place = match parameter["in"].as_str() {
        Some("path") => "path",
        Some("header") => "header",
        _ => "query",
    };
    Field {
        name: text(&parameter["name"]),
        place,
        kind: kind(document, &parameter["schema"]),
        is_required: parameter["required"] == true,
        meaning: text(&parameter["description"]),
    }
}

/// The schema of a body, from its first content type.
fn body_schema(body: &Value) -> &Value {
    members(&body["content"]).next().map_or(&Value::Null, |(_, content)| &content["schema"])
}

/// The properties of an object, including those of its `allOf` schemas.
fn fields(document: &Value, schema: &Value) -> Vec<Field> {
    let schema = resolved(document, schema);
    let is_required = |name: &str| items(&schema["required"]).any(|one| one == name);
    let own = members(&schema["properties"]).map(|(name, property)| Field {
        name: name.clone(),
        place: "body",
        kind: kind(document, property),
        is_required: is_required(name),
        meaning: meaning(document, property),
    });
    let of_parts = items(&schema["allOf"]).flat_map(|part| fields(document, part));
    own.chain(of_parts).collect()
}

fn meaning(document: &Value, schema: &Value) -> String {
    match schema["description"].as_str() {
        Some(description) => description.to_owned(),
        None => text(&resolved(document, schema)["description"]),
    }
}

fn kind(document: &Value, schema: &Value) -> String {
    let schema = resolved(document, schema);
    let choices: Vec<String> = items(&schema["enum"]).map(text).collect();
    if !choices.is_empty() {
        return choices.join(" | ");
    }
    let alternatives: Vec<String> = items(&schema["oneOf"]).map(|one| kind(document, one)).collect();
    if !alternatives.is_empty() {
        return alternatives.join(" or ");
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list of {}", kind(document, &schema["items"])),
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().map(text).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

/// Follows a reference within the document.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
