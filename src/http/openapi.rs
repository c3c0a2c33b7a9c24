//! The OpenAPI document: what the handlers say of themselves, and what is true of every one of them.

use std::collections::BTreeMap;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::openapi::content::Content;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, Ref, RefOr, Response as Documented, SecurityRequirement};
use utoipa::{OpenApi, ToSchema};

use crate::domain::licence::Product;
use crate::http::api::verify;

/// An error of the integrators' API (RFC 6749 5.2, and the vendor's envelope).
#[derive(Serialize, ToSchema)]
pub struct IntegratorError {
    #[serde(rename = "httpStatus")]
    http_status: bool,
    /// `invalid_request`, `invalid_client`, `invalid_grant`, `unauthorized_client`,
    /// `unsupported_grant_type`, `invalid_scope`, `insufficient_scope`, `slow_down`, `temporarily_unavailable` or `server_error`.
    error: String,
    error_description: String,
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
    // Any method and suffix: routed by hand.
    paths(verify::verify_scope),
    // Product: a path parameter, whose type is not collected from the handler.
    components(schemas(IntegratorError, ErrorStatus, Problem, Product))
)]
struct Base;

/// The document before any route.
pub fn base() -> Document {
    let mut document = Base::openapi();
    if let Some(components) = &mut document.components {
        components.add_security_scheme(
            "api_key",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-KEY"))),
        );
        components.add_security_scheme(
            "bearer",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        );
    }
    document
}

const INTEGRATOR_ERRORS: [(&str, &str); 9] = [
    ("400", "Malformed, or not granted"),
    ("401", "Key, address, client or token not accepted"),
    ("403", "Known, but may not pass"),
    ("408", "The body took too long"),
    ("413", "The body is too large"),
    ("415", "None of the three body types"),
    ("429", "Too many calls"),
    ("500", "An internal error"),
    ("503", "The store does not answer"),
];

const ADMIN_ERRORS: [(&str, &str); 11] = [
    ("400", "Malformed; the detail names the field"),
    ("401", "No live admin token"),
    ("403", "The role may not do this"),
    ("404", "No such object, or another merchant's"),
    ("408", "The body took too long"),
    ("409", "The state of the object does not allow it"),
    ("412", "Changed by somebody else"),
    ("413", "The body is too large"),
    ("415", "Not JSON"),
    ("500", "An internal error"),
    ("503", "The store does not answer"),
];

/// The finished document as JSON: the errors that every operation has are added to each.
pub fn rendered(mut document: Document) -> Bytes {
    for (path, item) in &mut document.paths.paths {
        let is_admin = path.starts_with("/admin/");
        for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete] {
            let Some(operation) = operation else { continue };
            if is_admin {
                add_errors(operation, &ADMIN_ERRORS, "application/problem+json", "Problem");
                let bearer = SecurityRequirement::new("bearer", Vec::<String>::new());
                operation.security = Some(vec![bearer]);
            } else {
                add_errors(operation, &INTEGRATOR_ERRORS, "application/json", "IntegratorError");
            }
        }
    }
    Bytes::from(document.to_json().expect("a document of strings and maps serialises"))
}

fn add_errors(operation: &mut Operation, errors: &[(&str, &str)], content_type: &str, schema: &str) {
    let responses: &mut BTreeMap<String, RefOr<Documented>> = &mut operation.responses.responses;
    for (status, description) in errors {
        let mut response = Documented::new(*description);
        let content = Content::new(Some(Ref::from_schema_name(schema)));
        response.content.insert(content_type.to_owned(), RefOr::T(content));
        responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
    }
}

/// `GET /openapi.json`.
pub fn response(document: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
