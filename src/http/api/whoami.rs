//! `GET /api/whoami`: describes the API key of the call and what it may do.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::api_key::{Environment, IpMode};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId};
use crate::domain::scope::Scopes;
use crate::flows::limits::LimitsOf;
use crate::http::Shared;
use crate::http::error::Failure;
use crate::http::layer::api_key::Keyed;

#[derive(Serialize, ToSchema)]
pub struct Whoami {
    merchant_id: MerchantId,
    api_key_id: ApiKeyId,
    name: String,
    /// The last characters of the key that this call used.
    key_hint: String,
    environment: Environment,
    /// Null means every scope.
    scopes: Option<Vec<String>>,
    expires_at: Option<Timestamp>,
    /// Whether other calls need an access token in addition to the key.
    enhanced_security: bool,
    /// The address of the caller. `hops` are the trusted proxies that the call came through, nearest last.
    #[schema(value_type = String)]
    client_ip: IpAddr,
    #[schema(value_type = Vec<String>)]
    hops: Vec<IpAddr>,
    ip_mode: IpMode,
    limits: LimitsOf,
}

/// Show the key of this call and what it may do. No access token is needed.
#[utoipa::path(get, path = "/api/whoami", tag = "tokens", security(("api_key" = [])),
    responses((status = 200, body = Whoami)))]
pub async fn whoami(
    State(shared): State<Arc<Shared>>,
    Keyed(mut caller): Keyed,
) -> Result<Json<Whoami>, Failure> {
    let core = &shared.core;
    core.confirm(&mut caller).await?;
    let unknown = || Failure::fault("a key that was let in is not in its record");
    let used = caller.key_secret().ok_or_else(unknown)?;
    core.note_use(caller.record.id, used, &caller.address).await?;
    let key = core.key_of(&caller).await?.ok_or_else(unknown)?;
    let secret = key.secrets.iter().find(|secret| secret.id == used.id).ok_or_else(unknown)?;
    Ok(Json(Whoami {
        merchant_id: key.merchant_id,
        api_key_id: key.id,
        name: key.name.clone(),
        key_hint: secret.hint.clone(),
        environment: key.environment,
        scopes: key.scopes.as_ref().map(Scopes::to_strings),
        expires_at: key.expires_at,
        enhanced_security: caller.record.has_enhanced_security(key.id),
        client_ip: caller.address.ip,
        hops: caller.address.hops.clone(),
        ip_mode: key.ip_mode,
        limits: core.limits.of(caller.address.ip),
    }))
}
