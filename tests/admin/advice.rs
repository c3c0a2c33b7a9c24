//! Tokens that may do more than they are used for. The audit trail names each of them once, and lists mark
//! them.

use chrono::TimeDelta;
use serde_json::json;

use super::{Admin, text};
use crate::support::each_engine;

const TOLD: &str = "select count(*) from audit_events where action = 'admin_token.too_broad'";

#[tokio::test]
async fn a_token_that_changes_nothing_is_named_once_and_one_that_works_is_not() {
    each_engine(async |app| {
        let busy = Admin::operator(&app).await;
        let idle = Admin::operator(&app).await;
        let service = json!({ "name": "s", "role": "service", "permissions": ["introspect"] });
        busy.post("/tokens", service).await.created();
        let old = json!({ "name": "Gateway", "role": "operator", "permissions": ["introspect"] });
        let old = busy.post("/tokens", old).await.created();
        let advise = async || app.core().advise_narrowing().await.expect("the store answers");
        assert_eq!(advise().await, 0, "on its first day");

        app.advance(TimeDelta::days(1));
        assert_eq!(advise().await, 1, "the one that may introspect");
        let marked = app.core().tokens_to_narrow().await.expect("the store answers");
        assert!(marked.keys().any(|id| id.to_string() == text(&old, "id")));

        app.advance(TimeDelta::days(29));
        busy.post("/merchants", json!({ "name": "B", "gateway": "g" })).await.created();
        idle.get("/merchants").await.ok();
        app.flush().await;
        assert_eq!(advise().await, 1, "the one that only read");
        assert_eq!(advise().await, 0, "each once");
        assert_eq!(app.number(TOLD).await, 2);
        assert_eq!(app.core().tokens_to_narrow().await.expect("the store answers").len(), 2);

        idle.post("/merchants", json!({ "name": "C", "gateway": "g" })).await.created();
        assert_eq!(app.core().tokens_to_narrow().await.expect("the store answers").len(), 1, "it works now");
    })
    .await;
}
