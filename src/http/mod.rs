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
pub mod front;
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
pub mod unfinished;

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, Route, any, get};
use futures_util::FutureExt;
use ipnet::IpNet;
use tokio_util::task::TaskTracker;
use tower::layer::layer_fn;
use tower::{Layer, Service, service_fn};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::config::ForwardedHeader;
use crate::flows::SharedCore;
use crate::flows::admission::Caller;
use crate::jobs::egress::Egress;
use crate::jobs::exchange_log::ExchangeLog;
use crate::jobs::sweep::Sweeper;
use crate::telemetry::traces::Traces;

use context::RequestContext;
use error::Failure;
use front::Front;

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
    /// Cells whose lists the console shows too. `None` if the settings name none.
    pub other_cells: Option<console::cells::OtherCells>,
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
pub fn front(shared: Arc<Shared>) -> Front {
    // `verify` checks the key and the address itself: it may only refuse with 401 or 403, and takes any
    // method.
    let verify = || any(api::verify::verify);
    let verify_scope = || any(api::verify::verify_scope);
    let admin =
        admin::routes().route_layer(from_fn_with_state(Arc::clone(&shared), layer::admin_token::admin_token));
    let (router, document) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(api::authorize::authorize))
        .routes(routes!(api::authorize::refresh_token))
        .routes(routes!(api::introspect::introspect))
        .routes(routes!(api::introspect::revoke))
        .routes(routes!(api::rotate_secret::rotate_secret))
        .routes(routes!(api::whoami::whoami))
        .routes(routes!(api::verify::verify).map(|_: MethodRouter<Arc<Shared>>| verify()))
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
    let router = router
        .merge(docs::routes(&shared.core.issuer, &document))
        .route("/openapi.json", get(async || openapi::response(document)))
        .merge(console::routes(&shared))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(around_every_call(Arc::clone(&shared)))
        .with_state(Arc::clone(&shared));
    Front::new(router, shared)
}

/// The one layer of all routes, also for paths that match none.
pub(in crate::http) fn around_every_call(
    shared: Arc<Shared>,
) -> impl Layer<
    Route,
    Service = impl Service<
        Request,
        Response = Response,
        Error = Infallible,
        Future = impl Future<Output = Result<Response, Infallible>> + Send,
    > + Clone
              + Send
              + Sync,
> + Clone {
    layer_fn(move |mut route: Route| {
        let shared = Arc::clone(&shared);
        service_fn(move |request: Request| {
            let name = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned().into());
            every_call(Arc::clone(&shared), name, request, &mut |request| {
                route.call(request).map(|Ok(answer)| answer)
            })
        })
    })
}

/// The steps for every call, outermost first. They share one layer, because each layer adds allocations and
/// copies of the request, which would cost more than the steps themselves.
fn every_call<A>(
    shared: Arc<Shared>,
    route: Option<Cow<'static, str>>,
    mut request: Request,
    handler: &mut dyn FnMut(Request) -> A,
) -> impl Future<Output = Result<Response, Infallible>> + Send + use<A>
where
    A: Future<Output = Response> + Send + 'static,
{
    let begun = layer::context::begin(&shared, route, &mut request);
    let reader = layer::render::Reader::of(&request);
    let answer = match request.extensions_mut().remove::<head::Refused>() {
        Some(head::Refused(failure)) => Err(failure),
        None => Ok(handler(request)),
    };
    async move {
        let context = begun.context.clone();
        let for_finish = Arc::clone(&shared);
        let finish = move |mut response: Response, has_hung_up: bool| {
            layer::render::render(&for_finish, &begun.context, &reader, &mut response);
            layer::context::end(&for_finish, &begun, &mut response, has_hung_up);
            response
        };
        Ok(match answer {
            Err(failure) => finish(failure.into_response(), false),
            Ok(answer) => {
                let recorded = layer::exchange_log::record(Arc::clone(&shared), context, answer);
                layer::detach::detach(&shared, recorded, finish).await
            }
        })
    }
}

/// The steps for a call with an API key, in order. They run before the body is read, for every handler that takes
/// a [`layer::api_key::Keyed`].
async fn admit(shared: &Shared, context: &RequestContext, headers: &HeaderMap) -> Result<Caller, Failure> {
    let mut caller = layer::api_key::admit(shared, context, headers).await?;
    layer::allow_list::admit(shared, context, &mut caller).await?;
    Ok(caller)
}
