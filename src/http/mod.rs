//! Parses requests, calls one flow, and renders the answer. All routes and all layers are in this file.

pub mod admin;
pub mod api;
pub mod basic;
pub mod body;
pub mod connection;
pub mod console;
pub mod context;
pub mod docs;
pub mod error;
mod exposition;
pub mod form;
pub mod head;
pub mod health;
pub mod layer;
pub mod metrics;
pub mod openapi;
pub mod ops;
pub mod places;
pub mod proxy_protocol;
pub mod refusal;
pub mod rest;
pub mod server;
pub mod stream;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use ipnet::IpNet;
use tokio_util::task::TaskTracker;
use tower::ServiceBuilder;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::config::ForwardedHeader;
use crate::flows::SharedCore;
use crate::jobs::egress::Egress;
use crate::jobs::exchange_log::ExchangeLog;
use crate::jobs::sweep::Sweeper;
use crate::telemetry::traces::Traces;

/// The settings for HTTP.
#[derive(Clone, Debug)]
pub struct Edge {
    pub trusted_proxies: Vec<IpNet>,
    pub forwarded_header: ForwardedHeader,
    /// After this time the caller is told to try again. The request itself continues in the background.
    pub request_timeout: Duration,
}

/// What every request shares.
pub struct Shared {
    pub core: SharedCore,
    pub edge: Edge,
    /// Whether successful probes and scrapes are logged.
    pub logs_probes: bool,
    pub exchanges: ExchangeLog,
    pub sweeper: Arc<Sweeper>,
    /// For webhook tests.
    pub egress: Arc<Egress>,
    /// Open requests, including those whose clients have hung up.
    pub tasks: TaskTracker,
    pub is_draining: AtomicBool,
    pub metrics: metrics::EdgeMetrics,
    /// `None` if the settings name no collector.
    pub traces: Option<Traces>,
    pub tls: Option<Arc<tls::Tls>>,
}

/// All routes with their layers, and the OpenAPI document.
pub fn router(shared: Arc<Shared>) -> Router {
    let keyed = |method: MethodRouter<Arc<Shared>>| {
        // Layers for calls with an API key, outermost first. They run only for methods that exist, so a wrong
        // method gets 405 even without a key.
        method.route_layer(
            ServiceBuilder::new()
                .layer(from_fn_with_state(Arc::clone(&shared), layer::api_key::api_key))
                .layer(from_fn_with_state(Arc::clone(&shared), layer::allow_list::allow_list)),
        )
    };
    let recorded = |method: MethodRouter<Arc<Shared>>| {
        method.route_layer(from_fn_with_state(Arc::clone(&shared), layer::exchange_log::exchange_log))
    };
    let integrator = |method| recorded(keyed(method));
    // For calls that the platform's services make too, with a service token instead of an API key.
    let checking = |method| {
        let service_token = from_fn_with_state(Arc::clone(&shared), layer::service_token::service_token);
        recorded(keyed(method).route_layer(service_token))
    };
    // `verify` checks the key and the address itself: it may only refuse with 401 or 403, and takes any
    // method.
    let recorded_always = |method: MethodRouter<Arc<Shared>>| {
        method.layer(from_fn_with_state(Arc::clone(&shared), layer::exchange_log::exchange_log))
    };
    let verify = || recorded_always(any(api::verify::verify));
    let verify_scope = || recorded_always(any(api::verify::verify_scope));
    let admin =
        admin::routes().route_layer(from_fn_with_state(Arc::clone(&shared), layer::admin_token::admin_token));
    let (router, document) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(api::authorize::authorize).map(integrator))
        .routes(routes!(api::authorize::refresh_token).map(integrator))
        .routes(routes!(api::introspect::introspect).map(checking))
        .routes(routes!(api::introspect::revoke).map(checking))
        .routes(routes!(api::rotate_secret::rotate_secret).map(integrator))
        .routes(routes!(api::whoami::whoami).map(integrator))
        .routes(routes!(api::verify::verify).map(|_| verify()))
        .route("/api/verify/", verify())
        .route("/api/verify/{*suffix}", verify())
        .route("/api/verify-scope", verify_scope())
        .route("/api/verify-scope/", verify_scope())
        .route("/api/verify-scope/{*scope_and_suffix}", verify_scope())
        .routes(routes!(api::metadata::metadata))
        .route("/.well-known/oauth-authorization-server/{*issuer}", get(api::metadata::metadata_at_path))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .merge(admin)
        .split_for_parts();
    shared.metrics.foresee(document.paths.paths.keys().map(String::as_str));
    let document = openapi::rendered(document, &shared.core.issuer);
    router
        .merge(docs::routes(&shared.core.issuer, &document))
        .route("/openapi.json", get(async || openapi::response(document)))
        .merge(console::routes(&shared))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn_with_state(Arc::clone(&shared), every_call))
        .with_state(shared)
}

/// The steps for every call, outermost first. They share one layer, because each layer adds allocations and
/// copies of the request, which would cost more than the steps themselves.
pub(in crate::http) async fn every_call(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = layer::context::begin(&shared, &mut request);
    let reader = layer::render::Reader::of(&request);
    let mut response = match request.extensions_mut().remove::<head::Refused>() {
        Some(head::Refused(failure)) => failure.into_response(),
        None => layer::detach::detach(&shared, next.run(request)).await,
    };
    layer::render::render(&shared, &begun.context, &reader, &mut response);
    layer::context::end(&shared, &begun, &mut response);
    response
}
