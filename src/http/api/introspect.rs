//! `POST /api/introspect` (RFC 7662) and `POST /api/revoke` (RFC 7009).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::admin::Permission;
use crate::domain::api_key::Environment;
use crate::domain::ids::MerchantId;
use crate::domain::reason::Reason;
use crate::domain::secret::PlainSecret;
use crate::domain::token::TokenKind;
use crate::flows::Core;
use crate::flows::error::Refused;
use crate::flows::failures::Surface;
use crate::flows::introspect::{Active, TokenRequester};
use crate::flows::principal::Origin;
use crate::http::Shared;
use crate::http::basic;
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::http::layer::service_token::{Asker, Asking};

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
    context: RequestContext,
    asking: Asking,
) -> Result<Json<IntrospectionResponse>, Failure> {
    let (requester, token) = question(&shared.core, asking, Permission::Introspect, &context)?;
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
    context: RequestContext,
    asking: Asking,
) -> Result<StatusCode, Failure> {
    let (requester, token) = question(&shared.core, asking, Permission::Revoke, &context)?;
    let origin = Origin { client_ip: context.ip(), request_id: context.request_id().to_owned() };
    shared.core.revoke(requester, token.expose(), origin).await?;
    Ok(StatusCode::OK)
}

/// The caller, and the token that the call is about.
fn question(
    core: &Core,
    Asking { asker, authorization, mut fields }: Asking,
    permission: Permission,
    context: &RequestContext,
) -> Result<(TokenRequester, PlainSecret), Failure> {
    let token = fields.take_secret("token");
    let requester = match asker {
        Asker::Service(service) if !service.has(permission) => {
            core.note_refused_call(&service, &context.admin_call(Surface::Api), Reason::PermissionMissing);
            return Err(Refused::InsufficientPermission.into());
        }
        Asker::Service(service) => {
            let expects_refresh_token = fields.get("token_type_hint") == Some("refresh_token");
            TokenRequester::Service { service, expects_refresh_token }
        }
        Asker::Client(caller) => {
            let presented = basic::client(authorization, &mut fields)?;
            context.note_client(&caller, &presented.client_id);
            TokenRequester::Client { caller, presented }
        }
    };
    let token = token.ok_or_else(|| Failure::invalid_request("token: missing"))?;
    Ok((requester, token))
}
