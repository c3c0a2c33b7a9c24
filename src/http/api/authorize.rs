//! `POST /api/authorize` and `POST /api/refresh_token`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::reason::Reason;
use crate::domain::secret::PlainSecret;
use crate::flows::admission::Caller;
use crate::flows::authorize::Issued;
use crate::http::Shared;
use crate::http::basic::{self, Authorization};
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::form::Fields;
use crate::http::layer::api_key::Keyed;

/// The same body is for the vendor's integrators, who read `httpStatus`, `expire_time` and `status`, and for
/// OAuth clients (RFC 6749 5.1).
#[derive(Serialize, ToSchema)]
pub struct TokenResponse {
    #[serde(rename = "httpStatus")]
    http_status: bool,
    access_token: String,
    token_type: &'static str,
    /// Seconds until the access token expires.
    expires_in: i64,
    /// When the access token expires, in UTC.
    #[schema(example = "2026-11-23 17:05:57")]
    expire_time: String,
    refresh_token: String,
    /// The current scopes of the session. Present if the client is restricted or asked for scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    status: PublishedStatus,
}

#[derive(Serialize, ToSchema)]
pub struct PublishedStatus {
    #[serde(rename = "statusCode")]
    status_code: u16,
    #[serde(rename = "statusDescription")]
    status_description: &'static str,
}

impl From<Issued> for TokenResponse {
    fn from(Issued { pair, scopes }: Issued) -> Self {
        Self {
            http_status: true,
            access_token: pair.access.expose().to_owned(),
            token_type: "Bearer",
            expires_in: pair.expires_in_secs,
            expire_time: pair.access_expires_at.to_published(),
            refresh_token: pair.refresh.expose().to_owned(),
            scope: scopes.map(|scopes| scopes.to_string()),
            status: PublishedStatus { status_code: 200, status_description: "Success" },
        }
    }
}

/// The fields of both calls, in any of three body types. HTTP Basic can replace the id and secret.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the extractor reads fields one by one; this documents them")]
pub struct TokenRequest {
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    /// `client_credentials` or `refresh_token`. It must fit the other fields.
    grant_type: Option<String>,
    /// Scopes, separated by single spaces (RFC 6749 3.3). On a refresh: exactly the session's scopes, or
    /// none.
    scope: Option<String>,
}

/// Start a session, or renew the one that `refresh_token` belongs to.
#[utoipa::path(post, path = "/api/authorize", tag = "tokens", security(("api_key" = [], "client" = []), ("api_key" = [])),
    request_body(content((TokenRequest = "application/x-www-form-urlencoded"),
        (TokenRequest = "multipart/form-data"), (TokenRequest = "application/json"))),
    responses((status = 200, body = TokenResponse)))]
pub async fn authorize(
    State(shared): State<Arc<Shared>>,
    Keyed(caller): Keyed,
    context: RequestContext,
    authorization: Authorization,
    mut fields: Fields,
) -> Result<Json<TokenResponse>, Failure> {
    let refresh_token = fields.take_secret("refresh_token");
    check_grant_type(&fields, refresh_token.is_some())?;
    issue(&shared, caller, &context, authorization, fields, refresh_token).await
}

/// Renew the session that `refresh_token` belongs to.
#[utoipa::path(post, path = "/api/refresh_token", tag = "tokens", security(("api_key" = [], "client" = []), ("api_key" = [])),
    request_body(content((TokenRequest = "application/x-www-form-urlencoded"),
        (TokenRequest = "multipart/form-data"), (TokenRequest = "application/json"))),
    responses((status = 200, body = TokenResponse)))]
pub async fn refresh_token(
    State(shared): State<Arc<Shared>>,
    Keyed(caller): Keyed,
    context: RequestContext,
    authorization: Authorization,
    mut fields: Fields,
) -> Result<Json<TokenResponse>, Failure> {
    let refresh_token = fields.take_secret("refresh_token");
    check_grant_type(&fields, true)?;
    if refresh_token.is_none() {
        return Err(Failure::invalid_request("refresh_token: missing"));
    }
    issue(&shared, caller, &context, authorization, fields, refresh_token).await
}

async fn issue(
    shared: &Shared,
    mut caller: Caller,
    context: &RequestContext,
    authorization: Authorization,
    mut fields: Fields,
    refresh_token: Option<PlainSecret>,
) -> Result<Json<TokenResponse>, Failure> {
    let client = basic::client(authorization, &mut fields)?;
    context.note_client(&caller, &client.client_id);
    if refresh_token.is_some() {
        context.note(|notes| notes.is_renewal = true);
    }
    let core = &shared.core;
    let asked =
        fields.get("scope").map(|text| core.asked_scopes(text)).transpose().map_err(Failure::refused)?;
    let asked = asked.as_ref();
    let decided = match refresh_token {
        None => core.authorize(&mut caller, &client, asked).await,
        Some(token) => core.refresh(&mut caller, &client, token.expose(), asked, context.request_id()).await,
    };
    context.note_ending(caller.client_ending(&client, core.now()));
    Ok(Json(decided?.into()))
}

/// `grant_type` is optional. If it is present, it must fit the other fields.
fn check_grant_type(fields: &Fields, is_refresh: bool) -> Result<(), Failure> {
    match (fields.get("grant_type"), is_refresh) {
        (None, _) | (Some("client_credentials"), false) | (Some("refresh_token"), true) => Ok(()),
        (Some("client_credentials"), true) => Err(Failure::invalid_request(
            "grant_type: client_credentials cannot be used with a refresh_token",
        )),
        (Some("refresh_token"), false) => Err(Failure::invalid_request("refresh_token: missing")),
        (Some(_), _) => Err(Failure::refused(Reason::GrantTypeUnsupported)),
    }
}
