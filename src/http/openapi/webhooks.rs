//! The webhooks in the OpenAPI document (OpenAPI 3.1, `webhooks`): one for each type of event.

use serde_json::{Map, Value, json};
use strum::VariantArray;

use crate::domain::event::EventType;

pub(super) fn add(document: &mut Value) {
    let told = EventType::VARIANTS.iter().filter_map(|event| Some((event.name(), event.told_to_webhooks()?)));
    let webhooks: Map<String, Value> =
        told.map(|(name, meaning)| (name.to_owned(), json!({ "post": operation(name, meaning) }))).collect();
    document["webhooks"] = Value::Object(webhooks);
}

/// The headers and the signature are those of Standard Webhooks 1.0.0.
fn operation(name: &str, meaning: &str) -> Value {
    let header = |name: &str, description: &str| {
        json!({ "name": name, "in": "header", "required": true, "description": description,
                "schema": { "type": "string" } })
    };
    json!({
        "operationId": format!("webhook_{}", name.replace('.', "_")),
        "summary": meaning,
        "tags": ["webhooks"],
        "security": [],
        "parameters": [
            header("webhook-id", "The same for every attempt. Remember it: delivery is at least once."),
            header("webhook-timestamp", "When this attempt was made, in seconds since 1970."),
            header("webhook-signature", "`v1,` and the base64 of the HMAC-SHA256 of `{id}.{timestamp}.{body}`. \
                While a secret is being replaced there are two, with a space between them."),
        ],
        "requestBody": {
            "required": true,
            "content": { "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "timestamp", "data"],
                    "properties": {
                        "type": { "const": name },
                        "timestamp": { "type": "string", "format": "date-time" },
                        "data": { "type": "object" },
                    },
                },
                "example": { "type": name, "timestamp": "2026-11-27T12:00:00.000Z", "data": {} },
            } },
        },
        "responses": {
            "2XX": { "description": "Taken" },
            "410": { "description": "Send nothing more: the webhook is disabled" },
            "4XX": { "description": "Not taken: it is sent again" },
        },
    })
}
