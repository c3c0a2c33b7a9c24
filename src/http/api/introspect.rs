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

/// What a token is worth now.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum IntrospectionResponse {
    Active(ActiveToken),
    Inactive(InactiveToken),
}

/// Nothing but this is said of a token that is not active.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InactiveToken {
    /// False.
    active: bool,
}

#[derive(Serialize, ToSchema)]
pub struct ActiveToken {
    /// True.
    active: bool,
    client_id: String,
    /// `Bearer` for an access token, `refresh_token` for the other kind, which opens nothing.
    token_type: &'static str,
    /// Seconds since 1970-01-01 UTC, as `iat`.
    exp: i64,
    iat: i64,
    /// The merchant.
    #[schema(value_type = uuid::Uuid)]
    sub: MerchantId,
    environment: Environment,
    /// One for each token.
    jti: String,
    iss: String,
    /// What it may do now, separated by spaces; not there where that is everything.
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

/// What both calls take, in any of three body types. HTTP Basic may stand in for id and secret.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the extractor reads fields one by one; this documents them")]
pub struct TokenQuestion {
    /// Anything that is not an active token is inactive, also what is too long or no text.
    token: String,
    /// A service that asks about refresh tokens says `refresh_token`; to others they are inactive. A client's
    /// own are looked at whatever it says.
    token_type_hint: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Tell whether a token is active (RFC 7662).
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

/// End the session of a token (RFC 7009). A token that is unknown is no error.
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

/// Who asks about which token.
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
