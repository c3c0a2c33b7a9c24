//! `GET /.well-known/oauth-authorization-server` (RFC 8414), also followed by the issuer's path.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::Shared;
use crate::http::error::Failure;

const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";

const CLIENT_AUTH_METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

/// Authorization server metadata (RFC 8414 2).
#[derive(Serialize, ToSchema)]
pub struct Metadata {
    issuer: String,
    token_endpoint: String,
    token_endpoint_auth_methods_supported: [&'static str; 2],
    /// Present if the settings list the scopes that exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<String>,
    grant_types_supported: [&'static str; 2],
    /// Empty, because there is no authorization endpoint.
    response_types_supported: [&'static str; 0],
    introspection_endpoint: String,
    /// `Bearer` is for service tokens.
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
}

/// Authorization server metadata (RFC 8414). The issuer comes from the settings and not from the Host header.
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server", tag = "tokens",
    responses((status = 200, body = Metadata)))]
pub async fn metadata(State(shared): State<Arc<Shared>>) -> Json<Metadata> {
    Json(of_issuer(&shared))
}

/// For an issuer with a path, clients put the well-known path between host and path (RFC 8414 3.1).
pub async fn metadata_at_path(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Json<Metadata>, Failure> {
    let issuer = &shared.core.issuer;
    let path = issuer.splitn(4, '/').nth(3);
    if uri.path().strip_prefix(WELL_KNOWN).and_then(|rest| rest.strip_prefix('/')) == path {
        Ok(Json(of_issuer(&shared)))
    } else {
        Err(Failure::of_status(StatusCode::NOT_FOUND))
    }
}

fn of_issuer(shared: &Shared) -> Metadata {
    let issuer = &shared.core.issuer;
    let [basic, post] = CLIENT_AUTH_METHODS;
    Metadata {
        issuer: issuer.clone(),
        token_endpoint: format!("{issuer}/api/authorize"),
        token_endpoint_auth_methods_supported: CLIENT_AUTH_METHODS,
        scopes_supported: shared.core.known_scopes.clone(),
        grant_types_supported: ["client_credentials", "refresh_token"],
        response_types_supported: [],
        introspection_endpoint: format!("{issuer}/api/introspect"),
        introspection_endpoint_auth_methods_supported: [basic, post, "Bearer"],
        revocation_endpoint: format!("{issuer}/api/revoke"),
        revocation_endpoint_auth_methods_supported: CLIENT_AUTH_METHODS,
    }
}
