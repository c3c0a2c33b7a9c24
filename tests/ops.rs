//! The operations listener: its contents, and that the public listener does not have them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use chrono::TimeDelta;
use tokio::sync::Notify;

use super::support::merchant::plain_key;
use super::support::{Call, TestApp, each_engine};

/// The series of a scrape, by name and labels.
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
            ("tollgate_exchanges_unrecorded_total", 0.0),
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
        for accept in
            ["application/openmetrics-text;q=0", "application/openmetrics-text;q=0.2,text/plain", "*/*"]
        {
            let reply = app.send_to_ops(Call::get("/metrics").header("accept", accept)).await;
            assert_eq!(reply.header("content-type"), plain.header("content-type"), "{accept}");
        }
    })
    .await;
}

/// The names of metrics in a text.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("tollgate_"))
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    each_engine(async |app| {
        app.send(Call::get("/healthz")).await;
        app.look_at_clock().await;
        let Metrics(served) = scrape(&app).await;
        let served: Vec<&str> = names_in(&served).collect();
        for file in [
            include_str!("../config/prometheus/alerts.yaml"),
            include_str!("../config/grafana/tollgate.json"),
        ] {
            let asked: Vec<&str> = names_in(file).collect();
            assert!(asked.len() > 5, "no metrics found");
            for name in asked {
                // Only a server with TLS has this one.
                let is_of_tls = name == "tollgate_tls_certificate_expiry_timestamp_seconds";
                assert!(is_of_tls || served.contains(&name), "{name} is not served");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_plain_format() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        app.tokens(&merchant).await;
        let text = scrape(&app).await.0;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/run installs it");
        promtool.stdin.take().expect("it was piped above").write_all(text.as_bytes()).expect("it reads");
        let told = promtool.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
        assert!(told.status.success() && said.is_empty(), "{said}");
    })
    .await;
}

#[tokio::test]
async fn what_somebody_is_woken_for_is_shown_before_it_happens() {
    each_engine(async |app| {
        let metrics = scrape(&app).await;
        for series in [
            r#"tollgate_http_requests_total{route="/api/authorize",status="500"}"#,
            r#"tollgate_http_requests_total{route="/admin/v1/merchants",status="503"}"#,
            r#"tollgate_http_requests_total{route="none",status="500"}"#,
            r#"tollgate_task_restarts_total{task="batches"}"#,
            r#"tollgate_task_restarts_total{task="exchange_log"}"#,
            "tollgate_log_lines_lost_total",
        ] {
            assert_eq!(metrics.value(series), 0.0, "{series}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_background_task_that_panics_is_started_anew_and_meanwhile_it_is_not_ready() {
    each_engine(async |app| {
        let recovered = Arc::new(Notify::new());
        let told = Arc::clone(&recovered);
        let mut panics = 4;
        let task = app.core().store.tasks().keep("clumsy", move || {
            panics -= 1;
            let told = Arc::clone(&told);
            async move {
                assert!(panics < 1, "as it should");
                told.notify_one();
                std::future::pending::<()>().await;
            }
        });
        let ready = async || app.send(Call::get("/readyz")).await;
        while ready().await.status == 200 {
            tokio::task::yield_now().await;
        }
        assert!(ready().await.text().contains("clumsy"));
        assert_eq!(scrape(&app).await.value(r#"tollgate_task_up{task="clumsy"}"#), 0.0);
        recovered.notified().await;
        assert_eq!(ready().await.status, 200);
        let metrics = scrape(&app).await;
        assert_eq!(metrics.value(r#"tollgate_task_restarts_total{task="clumsy"}"#), 3.0);
        assert_eq!(metrics.value(r#"tollgate_task_up{task="clumsy"}"#), 1.0);
        task.abort();
    })
    .await;
}
