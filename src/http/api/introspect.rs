//! `POST /api/introspect` (RFC 7662) and `POST /api/revoke` (RFC 7009).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::admin::Permission;
use crate::domain::api_key::Environment;
use crate::domain::ids::MerchantId;
use crate::domain::token::TokenKind;
use crate::flows::admission::Caller;
use crate::flows::error::Refused;
use crate::flows::introspect::{Active, TokenRequester};
use crate::flows::principal::Origin;
use crate::http::Shared;
use crate::http::basic::{self, Authorization};
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::form::Fields;
use crate::http::layer::service_token::Service;

/// The state of a token.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum IntrospectionResponse {
    Active(ActiveToken),
    Inactive(InactiveToken),
}

/// The answer for a token that is not active says nothing else.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InactiveToken {
    /// Always false.
    active: bool,
}

#[derive(Serialize, ToSchema)]
pub struct ActiveToken {
    /// Always true.
    active: bool,
    client_id: String,
    /// `Bearer` for an access token, `refresh_token` for a refresh token. A refresh token gives no access.
    token_type: &'static str,
    /// Seconds since 1970-01-01 UTC, like `iat`.
    exp: i64,
    iat: i64,
    /// The merchant.
    #[schema(value_type = uuid::Uuid)]
    sub: MerchantId,
    environment: Environment,
    /// Different for each token.
    jti: String,
    iss: String,
    /// The token's current scopes, separated by spaces. Missing if it has every scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

impl ActiveToken {
    fn new(active: Active, issuer: &str) -> Self {
        Self {
            active: true,
            client_id: active.client_id,
            token_type: match active.kind {
                TokenKind::Access => "Bearer",
                TokenKind::Refresh => "refresh_token",
            },
            exp: active.expires_at.unix_secs(),
            iat: active.issued_at.unix_secs(),
            sub: active.merchant_id,
            environment: active.environment,
            jti: match active.kind {
                TokenKind::Access => format!("{}.{}", active.session, active.generation),
                TokenKind::Refresh => format!("{}.{}.refresh", active.session, active.generation),
            },
            iss: issuer.to_owned(),
            scope: active.scopes.map(|scopes| scopes.to_string()),
        }
    }
}

/// The fields of both calls, in any of three body types. HTTP Basic can replace the id and secret.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the extractor reads fields one by one; this documents them")]
pub struct TokenQuestion {
    /// Any text or bytes. If it cannot be a token, the answer is that it is not active.
    token: String,
    /// A service must send `refresh_token` here to check refresh tokens; otherwise they count as inactive.
    /// For a client's own tokens the hint makes no difference.
    token_type_hint: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Check whether a token is active (RFC 7662).
#[utoipa::path(post, path = "/api/introspect", tag = "tokens",
    security(("api_key" = [], "client" = []), ("api_key" = []), ("bearer" = []), ("client" = [])),
    request_body(content((TokenQuestion = "application/x-www-form-urlencoded"),
        (TokenQuestion = "multipart/form-data"), (TokenQuestion = "application/json"))),
    responses((status = 200, body = IntrospectionResponse)))]
pub async fn introspect(
    State(shared): State<Arc<Shared>>,
    caller: Option<Extension<Caller>>,
    service: Option<Extension<Service>>,
    context: RequestContext,
    authorization: Authorization,
    fields: Fields,
) -> Result<Json<IntrospectionResponse>, Failure> {
    let (requester, token) =
        question(caller, service, Permission::Introspect, &context, authorization, fields)?;
    let active = shared.core.introspect(requester, token.expose()).await?;
    Ok(Json(match active {
        Some(active) => IntrospectionResponse::Active(ActiveToken::new(active, &shared.core.issuer)),
        None => IntrospectionResponse::Inactive(InactiveToken { active: false }),
    }))
}

/// End the session of a token (RFC 7009). An unknown token is not an error.
#[utoipa::path(post, path = "/api/revoke", tag = "tokens", security(("api_key" = [], "client" = []), ("api_key" = []), ("bearer" = []), ("client" = [])),
    request_body(content((TokenQuestion = "application/x-www-form-urlencoded"),
        (TokenQuestion = "multipart/form-data"), (TokenQuestion = "application/json"))),
    responses((status = 200)))]
pub async fn revoke(
    State(shared): State<Arc<Shared>>,
    caller: Option<Extension<Caller>>,
    service: Option<Extension<Service>>,
    context: RequestContext,
    authorization: Authorization,
    fields: Fields,
) -> Result<StatusCode, Failure> {
    let (requester, token) = question(caller, service, Permission::Revoke, &context, authorization, fields)?;
    let origin = Origin { client_ip: context.ip(), request_id: context.request_id().to_owned() };
    shared.core.revoke(requester, token.expose(), origin).await?;
    Ok(StatusCode::OK)
}

/// The caller, and the token that the call is about.
fn question(
    caller: Option<Extension<Caller>>,
    service: Option<Extension<Service>>,
    permission: Permission,
    context: &RequestContext,
    authorization: Authorization,
    mut fields: Fields,
) -> Result<(TokenRequester, crate::domain::secret::PlainSecret), Failure> {
    let token = fields.take_secret("token");
    let requester = match (service, caller) {
        (Some(Extension(Service(service))), _) if !service.has(permission) => {
            return Err(Refused::InsufficientPermission.into());
        }
        (Some(Extension(Service(service))), _) => {
            let expects_refresh_token = fields.get("token_type_hint") == Some("refresh_token");
            TokenRequester::Service { service, expects_refresh_token }
        }
        (None, Some(Extension(caller))) => {
            let presented = basic::client(authorization, &mut fields)?;
            context.note_client(&caller, &presented.client_id);
            TokenRequester::Client { caller, presented }
        }
        (None, None) => return Err(Failure::fault("neither a caller nor a service behind the layers")),
    };
    let token = token.ok_or_else(|| Failure::invalid_request("token: missing"))?;
    Ok((requester, token))
}
