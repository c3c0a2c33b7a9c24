//! Operations: what the second listener tells, and that the first does not.

use chrono::TimeDelta;

use super::support::merchant::plain_key;
use super::support::{Call, TestApp, each_engine};

/// The series of a scrape by name and labels, as they are written.
pub(crate) async fn scrape(app: &TestApp) -> Metrics {
    let reply = app.send_to_ops(Call::get("/metrics")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    Metrics(reply.text())
}

pub(crate) struct Metrics(String);

impl Metrics {
    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        let found = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = found.unwrap_or_else(|| panic!("no {series} in\n{}", self.0));
        value.parse().expect("a series has a number")
    }
}

#[tokio::test]
async fn metrics_tell_what_was_answered_issued_and_refused() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let first = app.tokens(&merchant).await;
        let second = app.send(merchant.refresh(&first.refresh)).await.tokens();
        app.send(merchant.refresh(&first.refresh)).await.tokens();
        app.send(merchant.refresh(&second.refresh)).await.tokens();
        app.send(merchant.refresh(&first.refresh)).await.refused(400, "invalid_grant");
        app.send(merchant.authorize().without("x-api-key")).await.refused(401, "invalid_client");
        for path in ["/zebra", "/zebra/too"] {
            app.send(Call::get(path)).await.refused(404, "invalid_request");
        }

        let metrics = scrape(&app).await;
        for (series, value) in [
            (r#"tollgate_http_requests_total{route="/api/authorize",status="200"}"#, 1.0),
            (r#"tollgate_http_requests_total{route="/api/authorize",status="401"}"#, 1.0),
            (r#"tollgate_http_requests_total{route="/api/refresh_token",status="200"}"#, 3.0),
            (r#"tollgate_http_requests_total{route="/api/refresh_token",status="400"}"#, 1.0),
            (r#"tollgate_http_requests_total{route="none",status="404"}"#, 2.0),
            (r#"tollgate_http_request_duration_seconds_count{route="/api/authorize"}"#, 2.0),
            (r#"tollgate_token_pairs_total{outcome="issued"}"#, 1.0),
            (r#"tollgate_token_pairs_total{outcome="refreshed"}"#, 2.0),
            (r#"tollgate_token_pairs_total{outcome="repeated"}"#, 1.0),
            ("tollgate_replays_total", 1.0),
            (r#"tollgate_refusals_total{reason="token_replayed"}"#, 1.0),
            (r#"tollgate_refusals_total{reason="key_missing"}"#, 1.0),
            (r#"tollgate_refusals_total{reason="key_unknown"}"#, 0.0),
            (r#"tollgate_batch_size_sum{operation="open_session"}"#, 1.0),
            (r#"tollgate_queue_depth{operation="open_session"}"#, 0.0),
            ("tollgate_exchanges_dropped_total", 0.0),
            ("tollgate_store_up", 1.0),
        ] {
            assert_eq!(metrics.value(series), value, "{series}");
        }
        assert!(!metrics.0.contains("zebra"), "a caller made up a label");
    })
    .await;
}

#[tokio::test]
async fn metrics_show_how_long_the_oldest_webhook_has_waited() {
    each_engine(async |app| {
        assert_eq!(scrape(&app).await.value("tollgate_outbox_deliveries"), 0.0);
        let mut key = plain_key();
        key.webhook_url = Some("https://hooks.example/".to_owned());
        let merchant = app.merchant_with(key).await;
        app.advance(TimeDelta::seconds(90));
        app.switch(&merchant, false).await;

        let metrics = scrape(&app).await;
        assert!(metrics.value("tollgate_outbox_deliveries") >= 2.0);
        assert_eq!(metrics.value("tollgate_outbox_age_seconds"), 90.0);
    })
    .await;
}

#[tokio::test]
async fn each_listener_has_its_own_routes() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        app.send(Call::get("/metrics")).await.refused(404, "invalid_request");
        app.send_to_ops(merchant.authorize()).await.refused(404, "invalid_request");
        for path in ["/healthz", "/readyz"] {
            assert_eq!(app.send(Call::get(path)).await.status, 200);
            assert_eq!(app.send_to_ops(Call::get(path)).await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    each_engine(async |app| {
        let plain = app.send_to_ops(Call::get("/metrics")).await;
        assert_eq!(plain.header("content-type").as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
        let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let call = Call::get("/metrics").header("accept", format!("{open};q=0.5,text/plain;q=0.1"));
        let reply = app.send_to_ops(call).await;
        assert_eq!(reply.header("content-type").as_deref(), Some(open));
        assert!(reply.text().ends_with("# EOF\n"));
    })
    .await;
}

/// Names of metrics in a text that is not ours to parse.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("tollgate_"))
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    each_engine(async |app| {
        app.send(Call::get("/healthz")).await;
        let Metrics(served) = scrape(&app).await;
        let served: Vec<&str> = names_in(&served).collect();
        for file in [
            include_str!("../config/prometheus/alerts.yaml"),
            include_str!("../config/grafana/tollgate.json"),
        ] {
            let asked: Vec<&str> = names_in(file).collect();
            assert!(asked.len() > 5, "no metrics found");
            for name in asked {
                // Only a server that speaks TLS has this one.
                let is_of_tls = name == "tollgate_tls_certificate_expiry_timestamp_seconds";
                assert!(is_of_tls || served.contains(&name), "{name} is not served");
            }
        }
    })
    .await;
}
