//! No text from a caller can forge or colour a log line.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::store::Engine;

use crate::admin::Admin;
use crate::console::people::sign_in_form;
use crate::support::program::Server;
use crate::support::tcp::Client;
use crate::support::{Call, Database, TestApp};

/// A forged log line after a line break, with colours and a bell.
const FORGED: &str = "\r\n2026-11-23T16:05:57Z  INFO forged\u{1b}[31m\u{7}\u{9b}2J\u{2028}forged";

/// Every place where a caller can send text.
async fn send_everywhere(address: std::net::SocketAddr, key: &str, operator: &str) {
    let encoded =
        percent_encoding::utf8_percent_encode(FORGED, percent_encoding::NON_ALPHANUMERIC).to_string();
    let in_header: Vec<u8> = FORGED.bytes().filter(|byte| !byte.is_ascii_control()).collect();
    let field = [("client_id", FORGED), ("client_secret", FORGED), (FORGED, FORGED)];
    let admin = |call: Call| call.header("authorization", format!("Bearer {operator}"));
    let merchant = json!({ "name": FORGED, "gateway": FORGED });
    let calls = [
        Call::get(&format!("/{encoded}?{encoded}")),
        Call::get(&format!("/api/verify/{encoded}")).key(key),
        Call::post("/api/authorize").key(key).form(&field),
        Call::post("/api/authorize").key(key).json(&field),
        Call::post("/api/authorize").key(key).multipart(&field),
        Call::post("/api/authorize").key(key).basic(FORGED, FORGED).form(&[]),
        Call::post("/api/authorize").key(key).body(Some("text/plain"), FORGED),
        Call::get("/api/verify").header("x-api-key", &in_header).header("x-request-id", &in_header),
        Call::get("/api/verify")
            .key(key)
            .header("x-forwarded-for", &in_header)
            .header("user-agent", &in_header),
        admin(Call::post("/admin/v1/merchants")).json_value(&merchant),
        admin(Call::post("/admin/v1/leaked-keys")).json_value(&json!({ "key": FORGED })),
        admin(Call::get(&format!("/admin/v1/merchants?cursor={encoded}"))),
        admin(Call::get(&format!("/admin/v1/api-keys/{encoded}"))),
        sign_in_form(FORGED, FORGED),
    ];
    for call in calls {
        let mut client = Client::connect(address).await.expect("it listens");
        let reply = client.send(call).await.expect("it answers");
        assert!(reply.status < 500, "{}", reply.text());
    }
}

async fn log_of(format: &str) -> String {
    let database = Database::fresh(Engine::Sqlite).await;
    let app = TestApp::over(database.clone()).await;
    let merchant = app.merchant().await;
    let operator = Admin::operator(&app).await.token;
    let mut command = Server::command("serve", &database);
    command.env("TOLLGATE__LOG__FORMAT", format).env("TOLLGATE__LOG__LEVEL", "tollgate=trace,info");
    let server = Server::start(&mut command);
    send_everywhere(server.address, &merchant.key, &operator).await;
    server.terminate();
    let (status, log) = server.ended_within(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.lines().count() > 14, "{log}");
    log
}

#[tokio::test]
async fn line_breaks_and_colours_in_any_field_forge_no_line_of_text() {
    let log = log_of("text").await;
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        let level = line.split_whitespace().nth(1).unwrap_or_default();
        let is_ours = line.as_bytes()[0].is_ascii_digit()
            && ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level)
            && line.split_whitespace().nth(2) != Some("forged");
        assert!(is_ours, "{line:?}");
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{2028}'), "{line:?}");
    }
}

#[tokio::test]
async fn line_breaks_and_colours_in_any_field_forge_no_line_of_json() {
    let log = log_of("json").await;
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(parsed["timestamp"].is_string() && parsed["level"].is_string(), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        if parsed["target"] == "tollgate::access" {
            assert!(parsed["path"].as_str().is_some_and(|path| path.starts_with('/')), "{line}");
            assert!(parsed["status"].is_u64() && parsed["latency_us"].is_u64(), "{line}");
        }
    }
}
