//! The admin API. Each handler parses JSON, calls one flow and renders JSON. Errors are RFC 9457 problems.
//!
//! [`super::layer::admin_token`] authenticates the caller. The flows decide what the caller may do. For
//! service tokens, [`permissions`] checks the call first.

pub mod api_keys;
pub mod audit;
pub mod body;
pub mod credentials;
pub mod exchanges;
pub mod merchants;
pub mod page;
pub mod permissions;
pub mod secrets;
pub mod sessions;
pub mod shown;
pub mod tokens;
pub mod users;
pub mod webhooks;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;

pub fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(merchants::create, merchants::list))
        .routes(routes!(merchants::show, merchants::update))
        .routes(routes!(merchants::put_licence))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::show, api_keys::update, api_keys::revoke))
        .routes(routes!(api_keys::restore))
        .routes(routes!(api_keys::rotate))
        .routes(routes!(api_keys::end_secret))
        .routes(routes!(api_keys::suggested_ips))
        .routes(routes!(api_keys::report_leaked))
        .routes(routes!(credentials::generate, credentials::list))
        .routes(routes!(credentials::show, credentials::update))
        .routes(routes!(credentials::rotate_secret))
        .routes(routes!(credentials::end_secret))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::show, sessions::end))
        .routes(routes!(exchanges::list))
        .routes(routes!(audit::list))
        .routes(routes!(audit::trail))
        .routes(routes!(audit::latest))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::show, tokens::rename, tokens::revoke))
        .routes(routes!(tokens::rotate))
        .routes(routes!(users::create, users::list))
        .routes(routes!(users::show, users::update))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::redeliver))
        .routes(routes!(webhooks::redeliver_failed))
        .routes(routes!(webhooks::publish))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::rotate_secret))
        .routes(routes!(webhooks::list_secrets))
}
