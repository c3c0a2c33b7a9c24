//! Rows that the schema or the program should have made impossible.

use tollgate::domain::admin::Role;
use tollgate::store::audit::Search;
use tollgate::store::{admin_tokens, audit};

use crate::admin::admin_token;
use crate::support::each_engine;

#[tokio::test]
async fn a_value_that_cannot_be_is_a_fault_that_names_its_table_and_itself() {
    each_engine(async |app| {
        admin_token(&app, Role::Operator, None, Vec::new()).await;
        app.run_sql("update audit_events set actor_kind = 'gremlin'").await;
        app.run_sql("update admin_tokens set permissions = '[\"fly\"]'").await;
        let mut db = app.core().store.read().await.expect("the store answers");
        let name = audit::newest(&mut db, &Search::default(), None, 10)
            .await
            .expect_err("no such actor")
            .to_string();
        let list =
            admin_tokens::list(&mut db, None, None, 10).await.expect_err("no such permission").to_string();
        assert_eq!(name, "impossible row in audit_events: \"actor_kind\": unknown name `gremlin`");
        assert!(list.starts_with("impossible row in admin_tokens: ") && list.contains("`fly`"), "{list}");
    })
    .await;
}
