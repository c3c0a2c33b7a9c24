//! The OpenAPI document: collects the descriptions of the handlers, and adds what applies to all of them.

mod examples;
mod webhooks;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::openapi::content::Content;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayItems, ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    OpenApi as Document, Ref, RefOr, Response as Documented, Schema, SecurityRequirement, ServerBuilder,
};
use utoipa::{OpenApi, ToSchema};

use super::docs;
use crate::domain::event::Outcome;
use crate::domain::licence::Product;
use crate::http::api::verify;

/// An error of the integrators' API (RFC 6749 5.2, and the vendor's envelope).
#[derive(Serialize, ToSchema)]
pub struct IntegratorError {
    #[serde(rename = "httpStatus")]
    http_status: bool,
    /// `invalid_request`, `invalid_client`, `invalid_grant`, `unauthorized_client`, `unsupported_grant_type`,
    /// `invalid_scope`, `insufficient_scope`, `slow_down`, `temporarily_unavailable` or `server_error`.
    error: String,
    error_description: String,
    /// Where the error is explained (RFC 6749 5.2).
    error_uri: String,
    request_id: String,
    status: ErrorStatus,
}

#[derive(Serialize, ToSchema)]
pub struct ErrorStatus {
    #[serde(rename = "statusCode")]
    status_code: u16,
    #[serde(rename = "statusDescription")]
    status_description: String,
}

/// An error of the admin API (RFC 9457).
#[derive(Serialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
    code: String,
    request_id: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tollgate",
        description = "Issues and verifies API credentials for the merchants of a payment platform."
    ),
    // Takes any method and suffix, so it is routed by hand.
    paths(verify::verify_scope),
    // Outcome and Product are types of parameters, which utoipa does not collect from the handlers.
    components(schemas(IntegratorError, ErrorStatus, Outcome, Problem, Product))
)]
struct Base;

/// The document without any route.
pub fn base() -> Document {
    let mut document = Base::openapi();
    if let Some(components) = &mut document.components {
        let http = |scheme, description: &str| {
            SecurityScheme::Http(HttpBuilder::new().scheme(scheme).description(Some(description)).build())
        };
        let key = ApiKeyValue::with_description(
            "X-API-KEY",
            "An API key: 64 hex characters, or 67 if the server is a cell.",
        );
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let client = "A client id and secret (RFC 6749 2.3.1). They may stand in the body instead.";
        components.add_security_scheme("client", http(HttpAuthScheme::Basic, client));
        components.add_security_scheme(
            "bearer",
            http(HttpAuthScheme::Bearer, "An admin token or a service token."),
        );
    }
    document
}

/// A status, what it means, and the `error` or `code` of an example.
type DocumentedError = (u16, &'static str, &'static str);

const INTEGRATOR_ERRORS: [DocumentedError; 9] = [
    (400, "Malformed, or not granted", "invalid_grant"),
    (401, "Key, address, client or token not accepted", "invalid_client"),
    (403, "Known, but may not pass", "insufficient_scope"),
    (408, "The body took too long", "invalid_request"),
    (413, "The body is too large", "invalid_request"),
    (415, "None of the three body types", "invalid_request"),
    (429, "Too many calls", "slow_down"),
    (500, "An internal error", "server_error"),
    (503, "The store does not answer", "temporarily_unavailable"),
];

const ADMIN_ERRORS: [DocumentedError; 12] = [
    (400, "Malformed; the detail names the field", "invalid_request"),
    (401, "No live admin token", "invalid_client"),
    (403, "The role may not do this", "forbidden"),
    (404, "No such object, or another merchant's", "not_found"),
    (408, "The body took too long", "invalid_request"),
    (409, "The state of the object does not allow it", "conflict"),
    (412, "Changed by somebody else", "version_mismatch"),
    (413, "The body is too large", "invalid_request"),
    (415, "Not JSON", "invalid_request"),
    (429, "Too many calls", "slow_down"),
    (500, "An internal error", "server_error"),
    (503, "The store does not answer", "temporarily_unavailable"),
];

/// The complete document as JSON, for a server at `issuer`. Adds to each operation what applies to all.
pub fn rendered(mut document: Document, issuer: &str) -> Bytes {
    document.servers = Some(vec![ServerBuilder::new().url(issuer).build()]);
    if let Some(components) = &mut document.components {
        components.schemas.iter_mut().for_each(|(name, schema)| refer_to_items(name, schema));
    }
    for (path, item) in &mut document.paths.paths {
        let is_admin = path.starts_with("/admin/");
        for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete] {
            let Some(operation) = operation else { continue };
            complete(operation);
            if is_admin {
                let example = |status, title: &str, code: &str| {
                    json!({ "type": "about:blank", "title": title, "status": status, "detail": title, "code": code,
                            "request_id": REQUEST_ID })
                };
                add_errors(operation, &ADMIN_ERRORS, "application/problem+json", "Problem", example);
                let bearer = SecurityRequirement::new("bearer", Vec::<String>::new());
                operation.security = Some(vec![bearer]);
            } else {
                let example = |status, description: &str, error: &str| {
                    json!({ "httpStatus": false, "error": error, "error_description": description,
                            "error_uri": docs::error_uri(issuer, error), "request_id": REQUEST_ID,
                            "status": { "statusCode": status, "statusDescription": description } })
                };
                operation.parameters.get_or_insert_default().push(RefOr::T(request_id()));
                add_errors(operation, &INTEGRATOR_ERRORS, "application/json", "IntegratorError", example);
            }
        }
    }
    let mut document = serde_json::to_value(document).expect("a document of strings and maps serialises");
    name_schemas_of_bodies(&mut document);
    examples::add(&mut document);
    webhooks::add(&mut document);
    Bytes::from(document.to_string())
}

/// Gives each content type of a body a schema with its own name. Generated clients choose the content type by
/// the type of the object. If all content types had the same schema, they would send the body several times.
fn name_schemas_of_bodies(document: &mut Value) {
    let Some(mut schemas) = document.pointer_mut("/components/schemas").map(Value::take) else { return };
    let Some(paths) = document["paths"].as_object_mut() else { return };
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    for body in operations.filter_map(|operation| operation.get_mut("requestBody")) {
        for (content_type, content) in body["content"].as_object_mut().into_iter().flatten() {
            let suffix = match content_type.as_str() {
                "application/x-www-form-urlencoded" => "Form",
                "multipart/form-data" => "Multipart",
                _ => continue,
            };
            let Some(reference) = content["schema"]["$ref"].as_str() else { continue };
            let name = reference.rsplit('/').next().unwrap_or_default();
            schemas[format!("{name}{suffix}")] = schemas[name].clone();
            content["schema"]["$ref"] = json!(format!("{reference}{suffix}"));
        }
    }
    document["components"]["schemas"] = schemas;
}

/// Makes a page refer to its items by name. The derived schema repeats them, and generated clients would get
/// two types for the same object.
fn refer_to_items(name: &str, schema: &mut RefOr<Schema>) {
    if let Some(item) = name.strip_prefix("Page_")
        && let RefOr::T(Schema::Object(page)) = schema
        && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
    {
        items.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(item).into()));
    }
}

const REQUEST_ID: &str = "01a20d60-fef6-7ad1-ae50-7286a391e4c4";

/// Completes an operation. Makes its id unique, because a handler's name is unique only in its file. Marks it
/// as public if it has no authentication. Describes answers that have no description.
fn complete(operation: &mut Operation) {
    if let (Some(id), Some([tag, ..])) = (&operation.operation_id, operation.tags.as_deref()) {
        operation.operation_id = Some(format!("{}_{id}", tag.replace(' ', "_")));
    }
    operation.security.get_or_insert_default();
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let status = status.parse::<StatusCode>().ok();
            response.description =
                status.and_then(|status| status.canonical_reason()).unwrap_or("Answer").to_owned();
        }
    }
}

/// Integrators name their calls, to find them in the API details.
fn request_id() -> Parameter {
    ParameterBuilder::new()
        .name("X-Request-Id")
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "Names the call in answers, logs and records: 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`. Without \
             one, the server chooses it.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn add_errors(
    operation: &mut Operation,
    errors: &[DocumentedError],
    content_type: &str,
    schema: &str,
    example: impl Fn(u16, &str, &str) -> Value,
) {
    for (status, description, code) in errors {
        let mut response = Documented::new(*description);
        let mut content = Content::new(Some(Ref::from_schema_name(schema)));
        content.example = Some(example(*status, description, code));
        response.content.insert(content_type.to_owned(), RefOr::T(content));
        operation.responses.responses.entry(status.to_string()).or_insert(RefOr::T(response));
    }
}

/// `GET /openapi.json`.
pub fn response(document: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
