//! A NUL in a field is refused on both engines, although SQLite could store it. In a credential it counts as
//! a failed attempt.

use serde_json::json;
use tollgate::config::Settings;

use crate::admin::Admin;
use crate::console::people::sign_in_form;
use crate::support::{Call, Merchant, each_engine, each_engine_with};

fn three_failures(settings: &mut Settings) {
    settings.limits.failures_per_address_per_minute = 3;
}

#[tokio::test]
async fn no_field_of_the_integrators_may_have_one() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (id, secret) = (merchant.client_id.as_str(), merchant.client_secret.as_str());
        let tables = [
            vec![("client_id", "a\0"), ("client_secret", secret)],
            vec![("client_id", id), ("client_secret", "\0")],
            merchant.fields(&[("grant_type", "client_credentials\0")]),
            merchant.fields(&[("note", "a\0b")]),
            merchant.fields(&[("no\0te", "a")]),
        ];
        for fields in tables {
            // A multipart body has the NUL itself, the others have an escape.
            for call in [
                merchant.call().form(&fields),
                merchant.call().json(&fields),
                merchant.call().multipart(&fields),
            ] {
                let said = app.send(call).await.refused(400, "invalid_request");
                assert!(
                    said.contains("NUL") || said == "the multipart body is malformed",
                    "{fields:?}: {said}"
                );
            }
        }
        for call in [merchant.call().basic("a\0", secret), merchant.call().basic(id, "a\0")] {
            app.send(call).await.refused(400, "invalid_request");
        }
    })
    .await;
}

#[tokio::test]
async fn one_in_a_credential_counts_as_a_failure() {
    each_engine_with(three_failures, async |app| {
        let merchant = app.merchant().await;
        let wrong = |id: &str, secret: &str| {
            let (client_id, client_secret) = (id.to_owned(), secret.to_owned());
            Merchant { client_id, client_secret, ..merchant.clone() }.authorize().from("192.0.2.1")
        };
        for call in [wrong("\0", "x"), wrong(&merchant.client_id, "\0"), wrong("\0", "\0")] {
            app.send(call).await.refused(400, "invalid_request");
        }
        app.send(wrong("\0", "x")).await.refused(429, "slow_down");

        let service =
            || Call::post("/api/introspect").basic("\0", "tga_\0").form(&[("token", "x")]).from("192.0.2.2");
        for _ in 0..3 {
            app.send(service()).await.refused(400, "invalid_request");
        }
        app.send(service()).await.refused(429, "slow_down");

        let sign_ins = [
            sign_in_form("ada\0@harbour.example", "x"),
            sign_in_form("ada@harbour.example", "\0"),
            Call::post("/console/once").form(&[("token", "\0")]),
        ];
        for call in sign_ins {
            assert_eq!(app.send(call.from("192.0.2.3")).await.status, 400);
        }
        assert_eq!(app.send(sign_in_form("\0", "x").from("192.0.2.3")).await.status, 429);
    })
    .await;
}

#[tokio::test]
async fn no_field_of_the_admin_api_may_have_one() {
    each_engine(async |app| {
        let admin = Admin::operator(&app).await;
        for name in ["\0", "a\\\\\0", "Corner\0shop"] {
            let reply = admin.post("/merchants", json!({ "name": name, "gateway": "any" })).await;
            assert!(reply.problem(400, "invalid_request").contains("NUL"));
        }
        let merchant = admin.licensed_merchant("any").await;
        let event = json!({ "type": "order.paid", "data": { "note": "\0" } });
        let reply = admin.post(&format!("/merchants/{merchant}/events"), event).await;
        assert!(reply.problem(400, "invalid_request").contains("NUL"));
        // With another backslash in front, it is not an escape.
        admin.post("/merchants", json!({ "name": "a\\u0000", "gateway": "any" })).await.created();
    })
    .await;
}
