//! Spans, as a collector gets them from the real program.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tollgate::store::Engine;

use crate::support::program::Server;
use crate::support::receiver::{Closed, Hook, Receiver};
use crate::support::tcp::Client;
use crate::support::{Call, Database, Merchant, Reply, TestApp};

/// From the W3C's own example.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A server that sends its spans to `collector`, and a merchant of it. It lives as long as its database.
async fn traced(database: &Arc<Database>, collector: &str, settings: &[(&str, &str)]) -> (Server, Merchant) {
    let app = TestApp::over(Arc::clone(database)).await;
    let merchant = app.merchant().await;
    let mut command = Server::command("serve", database);
    command.env("TOLLGATE__TRACES__OTLP_ENDPOINT", collector).env("TOLLGATE__LOG__FORMAT", "json");
    command.envs(settings.iter().copied());
    (Server::start(&mut command), merchant)
}

fn base_of(collector: &Receiver) -> String {
    format!("http://{}", collector.address)
}

async fn send(server: &Server, call: Call) -> Reply {
    let mut client = Client::connect(server.address).await.expect("it listens");
    client.send(call).await.expect("it answers")
}

/// Stops the server, which sends the remaining spans. Returns all spans and the log.
fn spans_of(server: Server, collector: &Receiver) -> (Vec<Span>, String) {
    server.terminate();
    let (status, log) = server.ended_within(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "{log}");
    (collector.received().iter().flat_map(spans_in).collect(), log)
}

fn spans_in(hook: &Hook) -> Vec<Span> {
    assert_eq!(hook.path, "/v1/traces");
    assert_eq!(hook.header("content-type"), "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(hook.body.clone()).expect("it is protobuf");
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn text_of(span: &Span, name: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_a_span_that_tells_what_came_of_it_and_no_secret() {
    let database = Database::fresh(Engine::Sqlite).await;
    let collector = Receiver::open();
    let (server, merchant) = traced(&database, &base_of(&collector), &[]).await;
    let issued = send(&server, merchant.authorize().header("x-request-id", "till-7")).await.tokens();
    assert_eq!(send(&server, Call::post("/api/authorize").form(&[])).await.status, 401);
    assert_eq!(send(&server, Call::get("/nothing/here")).await.status, 404);

    let (spans, log) = spans_of(server, &collector);
    let [granted, refused, lost] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!((granted.name.as_str(), granted.kind()), ("POST /api/authorize", SpanKind::Server));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/api/authorize"),
        ("url.path", "/api/authorize"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
        ("tollgate.request_id", "till-7"),
    ] {
        assert_eq!(text_of(granted, name).as_deref(), Some(value), "{name}");
    }
    assert!(granted.start_time_unix_nano < granted.end_time_unix_nano);
    assert_eq!(text_of(refused, "error.type").as_deref(), Some("key_missing"));
    assert_eq!(text_of(refused, "http.response.status_code").as_deref(), Some("401"));
    assert!(
        spans
            .iter()
            .all(|span| { span.status.as_ref().is_none_or(|status| status.code() == StatusCode::Unset) })
    );
    assert_eq!((lost.name.as_str(), text_of(lost, "http.route")), ("GET", None));

    let trace = hex::encode(&granted.trace_id);
    let line = log.lines().find(|line| line.contains("till-7")).expect("the call has a line");
    assert!(line.contains(&format!("\"trace_id\":\"{trace}\"")), "{line}");
    let shown = format!("{spans:?}");
    for secret in [&merchant.key, &merchant.client_secret, &issued.access, &issued.refresh] {
        assert!(!shown.contains(secret.as_str()), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_names_the_trace_and_whether_it_is_collected() {
    let database = Database::fresh(Engine::Sqlite).await;
    let settings =
        [("TOLLGATE__SERVER__TRUSTED_PROXIES", "127.0.0.1"), ("TOLLGATE__TRACES__SAMPLE_PERCENT", "0")];
    let collector = Receiver::open();
    let (server, merchant) = traced(&database, &base_of(&collector), &settings).await;
    let through_proxy = |flags: &str| {
        let traceparent = format!("00-{TRACE}-{PARENT}-{flags}");
        merchant.authorize().header("x-forwarded-for", "192.0.2.1").header("traceparent", traceparent)
    };
    send(&server, through_proxy("01")).await.tokens();
    send(&server, through_proxy("00")).await.tokens();
    send(&server, merchant.authorize().header("x-forwarded-for", "192.0.2.1")).await.tokens();

    let (spans, _) = spans_of(server, &collector);
    let [span] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(hex::encode(&span.trace_id), TRACE);
    assert_eq!(hex::encode(&span.parent_span_id), PARENT);
    assert_eq!(text_of(span, "client.address").as_deref(), Some("192.0.2.1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_chooses_neither_its_trace_nor_that_there_is_one() {
    let database = Database::fresh(Engine::Sqlite).await;
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    for (percent, expected) in [("0", 0), ("100", 1)] {
        let collector = Receiver::open();
        let settings = [("TOLLGATE__TRACES__SAMPLE_PERCENT", percent)];
        let (server, merchant) = traced(&database, &base_of(&collector), &settings).await;
        send(&server, merchant.authorize().header("traceparent", &traceparent)).await.tokens();
        let (spans, _) = spans_of(server, &collector);
        assert_eq!(spans.len(), expected, "{spans:#?}");
        assert!(spans.iter().all(|span| hex::encode(&span.trace_id) != TRACE));
        assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_collector_the_server_answers_and_stops_as_ever() {
    let database = Database::fresh(Engine::Sqlite).await;
    let closed = Closed::new();
    let (server, merchant) = traced(&database, &format!("http://{}", closed.address), &[]).await;
    send(&server, merchant.authorize()).await.tokens();
    server.terminate();
    let (status, log) = server.ended_within(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "{log}");
    let told = log.lines().any(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
    assert!(told, "nobody is told that spans are lost: {log}");
}
