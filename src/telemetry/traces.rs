//! Traces: one span for each call, sent with OTLP over HTTP in protobuf, if the settings name a collector.
//!
//! A call through a trusted proxy continues the trace in its `traceparent` header (W3C Trace Context), and is
//! sampled if the header says so. From other callers we ignore the header, because they must not decide
//! what we collect.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::HeaderMap;
use bytes::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, TraceId, Tracer, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

use crate::client_tls::client_tls;
use crate::config;
use crate::domain::clock::Timestamp;

/// The collector's path for traces, below its base URL (OTLP specification, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";

/// How long the collector may take for a batch, also for the last one when the server stops. If the queue
/// fills up in the meantime, spans are dropped.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The methods that may appear in a span's name. A caller can invent others, and each would make a new name
/// (OpenTelemetry semantic conventions for HTTP spans).
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A call that has been answered.
pub struct Call<'a> {
    /// The trace that this call continues, if any.
    pub parent: &'a Context,
    pub at: Timestamp,
    pub request_id: &'a str,
    pub method: &'a str,
    pub route: Option<&'a str>,
    pub path: &'a str,
    pub status: u16,
    pub reason: Option<&'static str>,
    pub client_ip: IpAddr,
    pub latency: Duration,
}

pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Traces {
    /// Starts sending spans to the collector. `None` if the settings name none. The collector need not be
    /// running yet, and may go away.
    pub fn start(settings: &config::Traces) -> Result<Option<Self>, ExporterBuildError> {
        let Some(endpoint) = &settings.otlp_endpoint else { return Ok(None) };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls([]))
            .https_or_http()
            .enable_http1()
            .build();
        let client = HyperClient::new(connector, EXPORT_TIMEOUT, None);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector { client, runtime: Handle::current() })
            .with_endpoint(format!("{endpoint}{PATH}"))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let share = f64::from(settings.sample_percent) / 100.0;
        let resource = Resource::builder()
            .with_service_name("tollgate")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("tollgate");
        Ok(Some(Self { provider, tracer, propagator: TraceContextPropagator::new() }))
    }

    /// The trace in these headers. They must come from a trusted proxy.
    pub fn named_by(&self, headers: &HeaderMap) -> Context {
        self.propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
    }

    /// Records the span of a call. Returns its trace if that is sampled.
    pub fn record(&self, call: &Call<'_>) -> Option<TraceId> {
        let began = UNIX_EPOCH + Duration::from_micros(call.at.micros().try_into().unwrap_or(0));
        let method = if METHODS.contains(&call.method) { call.method } else { "_OTHER" };
        let name: Cow<'static, str> = match call.route {
            Some(route) => format!("{method} {route}").into(),
            None => method.to_owned().into(),
        };
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server).with_start_time(began);
        let mut span = self.tracer.build_with_context(builder, call.parent);
        if !span.span_context().is_sampled() {
            return None;
        }
        span.set_attributes([
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("url.path", call.path.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(call.status)),
            KeyValue::new("client.address", call.client_ip.to_string()),
            KeyValue::new("tollgate.request_id", call.request_id.to_owned()),
        ]);
        span.set_attributes(call.route.map(|route| KeyValue::new("http.route", route.to_owned())));
        span.set_attributes(call.reason.map(|reason| KeyValue::new("error.type", reason)));
        // Refusing a call is normal work. Only the server's own failures are errors of the span.
        if call.status >= 500 {
            span.set_status(Status::error(""));
        }
        let trace = span.span_context().trace_id();
        span.end_with_timestamp(began + call.latency);
        Some(trace)
    }

    /// Sends the remaining spans.
    pub async fn stop(&self) {
        let provider = self.provider.clone();
        // The shutdown blocks until the exporter's thread has sent everything, and that thread needs this
        // runtime.
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(EXPORT_TIMEOUT));
        if let Ok(Err(error)) = stopped.await {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// The HTTP client for the collector. The exporter calls it from its own thread, but hyper needs the runtime.
struct Collector {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    runtime: Handle,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(
        &self,
        request: axum::http::Request<Bytes>,
    ) -> Result<axum::http::Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
