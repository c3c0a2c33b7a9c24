//! The web console. It parses forms, calls the same flows as the admin API, and renders pages. It makes no
//! decisions of its own. It has no build step and works without JavaScript.
//!
//! The lists of merchants and of audit events can span several cells: [`cells`] asks the others.
//!
//! Each screen is one file, with its templates in `templates`. An operator selects a merchant and then has
//! the same screens as the merchant's own users.

mod access_keys;
mod account;
pub(super) mod assets;
mod audit;
pub mod cells;
mod chart;
mod confirm;
mod context;
mod cookie;
mod exchanges;
mod form;
pub mod guard;
mod health;
mod kept_form;
mod key;
mod key_form;
mod key_secrets;
mod keys;
mod listing;
mod merchants;
mod mistakes;
mod overview;
mod page;
mod people;
mod rename;
mod scopes;
mod secrets;
mod sessions;
mod sign_in;
mod tokens;
mod webhook;
mod webhooks;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Redirect;
use axum::routing::{MethodRouter, get, post};

use self::context::UserContext;
use super::Shared;

pub use page::failure_body;

/// All routes of the console, with their own layers.
pub fn routes(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/console", get(home))
        .route("/console/sign-out", post(sign_in::sign_out))
        .merge(account_routes())
        .merge(platform_routes())
        .merge(people_routes("/console/people"))
        .merge(people_routes("/console/m/{merchant}/people"))
        .merge(key_routes())
        .merge(merchant_routes())
        // This layer applies only to the routes above this line. The outermost layer comes last.
        .route_layer(from_fn_with_state(Arc::clone(shared), guard::signed_in))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::submit))
        .route("/console/sign-in/merchant", get(up::<1>).post(sign_in::submit_merchant))
        .route("/console/sign-in/code", get(sign_in::show_code).post(sign_in::submit_code))
        .route("/console/once", get(sign_in::show_link).post(sign_in::submit_link))
        .route("/console/welcome", get(sign_in::welcome))
        .route_layer(from_fn(guard::same_site))
        .route_layer(from_fn_with_state(Arc::clone(shared), guard::counted))
        .route("/console/assets/{name}", get(assets::serve))
}

fn account_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/console/account", get(account::show))
        .route("/console/account/password", get(up::<1>).post(account::set_password))
        .route("/console/account/end-others", post(account::end_others))
        .route("/console/account/second-factor", get(account::enrol).post(account::confirm))
        .route("/console/account/second-factor/remove", get(account::confirm_remove).post(account::remove))
        .route("/console/account/recovery-codes", get(up::<1>).post(account::renew_codes))
}

fn platform_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/console/merchants", get(merchants::list).post(merchants::add))
        .route("/console/audit", get(audit::of_platform))
        .route("/console/health", get(health::show))
}

fn people_routes(base: &str) -> Router<Arc<Shared>> {
    let at = |rest: &str| format!("{base}{rest}");
    Router::new()
        .route(base, get(people::list))
        .route(&at("/users"), get(up::<1>).post(people::add_user))
        .route(&at("/users/{user}/link"), get(up::<3>).post(people::link))
        .route(&at("/users/{user}/disable"), changing(get(people::confirm_disable).post(people::disable)))
        .route(
            &at("/users/{user}/remove-factor"),
            changing(get(people::confirm_remove_factor).post(people::remove_factor)),
        )
        .route(&at("/users/{user}/rename"), changing(get(rename::show_user).post(rename::user)))
        .route(&at("/tokens/{token}/rename"), changing(get(rename::show_token).post(rename::token)))
        .route(&at("/tokens"), get(tokens::list).post(tokens::add))
        .route(&at("/tokens/{token}/rotate"), changing(get(tokens::show_rotate).post(tokens::rotate)))
        .route(&at("/tokens/{token}/revoke"), changing(get(tokens::confirm_revoke).post(tokens::revoke)))
}

fn merchant_routes() -> Router<Arc<Shared>> {
    let at = |rest: &str| format!("/console/m/{{merchant}}{rest}");
    Router::new()
        .route(&at(""), get(overview::show))
        .route(&at("/api-details"), get(exchanges::list))
        .route(&at("/api-details/allow"), post(exchanges::allow))
        .route(&at("/webhooks"), get(webhooks::list))
        .route(
            &at("/webhooks/resend-failed"),
            changing(get(webhooks::confirm_resend_failed).post(webhooks::resend_failed)),
        )
        .route(&at("/webhooks/{delivery}"), get(webhook::show))
        .route(&at("/webhooks/{delivery}/resend"), get(up::<1>).post(webhooks::resend))
        .route(&at("/webhooks/ping/{key}"), get(up::<2>).post(webhooks::send_ping))
        .route(&at("/sessions"), get(sessions::list))
        .route(&at("/sessions/{session}/end"), changing(get(sessions::confirm_end).post(sessions::end)))
        .route(&at("/audit"), get(audit::list))
        .route(&at("/audit.csv"), get(audit::csv))
        .route(&at("/account"), get(merchants::show).post(merchants::save))
        .route(&at("/account/status"), get(merchants::confirm_suspend).post(merchants::set_status))
        .route(&at("/account/licences/{product}"), get(up::<2>).post(merchants::put_licence))
}

fn key_routes() -> Router<Arc<Shared>> {
    let base = "/console/m/{merchant}";
    let at = |rest: &str| format!("{base}{rest}");
    let tokens = |rest: &str| format!("{base}/api-keys/{{key}}/tokens{rest}");
    Router::new()
        .route(&at("/api-keys"), get(keys::list).post(keys::save))
        .route(&at("/api-keys/new"), changing(get(keys::new)))
        .route(&at("/api-keys/{key}"), get(key::show).post(key::save))
        .route(&at("/api-keys/{key}/revoke"), changing(get(keys::confirm_revoke).post(keys::revoke)))
        .route(&at("/api-keys/{key}/restore"), post(keys::restore))
        .route(
            &at("/api-keys/{key}/rotate"),
            changing(get(key_secrets::show_rotate).post(key_secrets::rotate)),
        )
        .route(
            &at("/api-keys/{key}/secrets/{secret}/end"),
            changing(get(key_secrets::confirm_end_secret).post(key_secrets::end_secret)),
        )
        .route(&at("/api-keys/{key}/test-webhook"), get(up::<1>).post(key::test_webhook))
        .route(&at("/api-keys/{key}/enable-webhook"), get(up::<1>).post(key::enable_webhook))
        .route(
            &at("/api-keys/{key}/webhook-secret"),
            changing(get(key_secrets::show_rotate_webhook).post(key_secrets::rotate_webhook)),
        )
        .route(&tokens(""), get(access_keys::show).post(access_keys::generate))
        .route(&tokens("/{client}/switch"), get(up::<2>).post(access_keys::switch))
        .route(&tokens("/{client}/switch-off"), changing(get(access_keys::confirm_switch)))
        .route(&tokens("/{client}/scopes"), changing(get(scopes::show_client).post(scopes::save_client)))
        .route(&tokens("/{client}/rotate"), changing(get(access_keys::show_rotate).post(access_keys::rotate)))
        .route(
            &tokens("/{client}/secrets/{secret}/end"),
            changing(get(access_keys::confirm_end_secret).post(access_keys::end_secret)),
        )
}

/// Pages that only lead to a change, so viewers do not get them.
fn changing(pages: MethodRouter<Arc<Shared>>) -> MethodRouter<Arc<Shared>> {
    pages.route_layer(from_fn(guard::must_not_only_look))
}

/// Some forms are answered with a page at their own path. If the user loads that page again, this redirects
/// to the screen with the form, which is `STEPS` segments up the path.
async fn up<const STEPS: usize>(uri: Uri) -> Redirect {
    let path = (0..STEPS).fold(uri.path(), |path, _| path.rsplit_once('/').map_or(path, |(above, _)| above));
    Redirect::to(path)
}

/// Redirects to the user's first screen.
async fn home(context: UserContext) -> Redirect {
    match context.principal.merchant_id {
        Some(own) => Redirect::to(&format!("/console/m/{own}")),
        None => Redirect::to("/console/merchants"),
    }
}
