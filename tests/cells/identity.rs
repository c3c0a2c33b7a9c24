//! What a cell makes shows it, and a database belongs to one cell.

use tollgate::app::{App, BuildError, Create};
use tollgate::config::{Settings, TokenKeys};
use tollgate::domain::admin::Role;
use tollgate::domain::cell::Cell;
use tollgate::domain::entropy::Entropy;

use super::cell;
use crate::admin::{Admin, introspect_as, service_token, text};
use crate::console::people::{PASSWORD, sign_in_form};
use crate::support::program::{Server, run};
use crate::support::{Call, TestApp, each_engine, each_engine_with};

/// Cell 0x0c8.
fn cell_200(settings: &mut Settings) {
    settings.cell = cell(200, false);
}

/// Starts a replica with other cell settings on the database of `app`.
async fn start_as(app: &TestApp, cell: Option<Cell>) -> Result<App, BuildError> {
    let mut settings = Settings::with_defaults();
    settings.database.url = app.database.url.parse().expect("the tests' own URLs are well-formed");
    settings.tokens.keys = TokenKeys::new(vec![[0x5a; 32]]);
    settings.cell = cell;
    App::build(&settings, Create::Database, app.clock.clone(), Entropy::System).await
}

#[track_caller]
fn assert_shows_cell_200(id: &str) {
    assert_eq!(&id[14..23], "70c8-bce1", "{id}");
}

#[tokio::test]
async fn keys_tokens_and_ids_of_a_cell_show_it_and_work() {
    each_engine_with(cell_200, async |app| {
        let admin = Admin::operator(&app).await;
        assert_eq!(&admin.token[..7], "tga_0c8");
        let merchant = admin.licensed_merchant("demo").await;
        assert_shows_cell_200(&merchant);
        let key = admin.key(&merchant, serde_json::json!({})).await;
        assert!(text(&key, "key").starts_with("0c8") && text(&key, "key").len() == 67, "{key}");
        assert_shows_cell_200(text(&key, "id"));
        let credentials = admin.credentials(&key).await;
        assert!(text(&credentials, "client_id").starts_with("0c8"), "{credentials}");

        let pair = app.send(crate::admin::authorize(&key, &credentials)).await.tokens();
        for token in [&pair.access, &pair.refresh] {
            assert_eq!(&token[10..12], "DI");
        }
        assert_eq!(app.send(crate::admin::verify(&key, &pair.access)).await.status, 200);
        let service = service_token(&app).await;
        let told = app.send(introspect_as(&service, &pair.access)).await.json();
        assert_eq!(told["active"], true, "{told}");
        assert_shows_cell_200(
            app.send(Call::get("/api/whoami").key(text(&key, "key")))
                .await
                .header("x-request-id")
                .expect("every answer has one")
                .as_str(),
        );

        let rotated = admin
            .post(
                &format!("/api-keys/{}/rotate", text(&key, "id")),
                serde_json::json!({ "overlap_secs": 60 }),
            )
            .await;
        assert!(text(&rotated.created(), "key").starts_with("0c8"));
    })
    .await;
}

#[tokio::test]
async fn without_cells_nothing_looks_different() {
    each_engine(async |app| {
        let admin = Admin::operator(&app).await;
        let merchant = app.merchant().await;
        assert_eq!((admin.token.len(), merchant.key.len(), merchant.client_id.len()), (47, 64, 32));
        assert_eq!(app.number("select count(*) from cell").await, 0);
        let metrics = app.send_to_ops(Call::get("/metrics")).await.text();
        assert!(!metrics.contains("wrong_cell_calls"), "{metrics}");
        let absent = admin.get("/merchants/01a20d60-fef6-7005-bce1-7286a391e4c4").await;
        assert!(!absent.problem(404, "not_found").contains("cell"));
    })
    .await;
}

#[tokio::test]
async fn a_database_belongs_to_one_cell() {
    each_engine_with(cell_200, async |app| {
        for (other, named) in [(cell(7, true), "cell 7"), (None, "no cell")] {
            let refused = start_as(&app, other).await.err().expect("it is another cell's").to_string();
            assert!(refused.contains("cell 200") && refused.contains(named), "{refused}");
        }
        start_as(&app, cell(200, true)).await.expect("it is this cell's").close().await;

        let add = |number: &str| {
            let mut add = Server::command_of(&["merchant", "add", "Acme"], &app.database);
            add.env("TOLLGATE__CELL__ID", number);
            run(&mut add)
        };
        assert!(!add("7").status.success(), "a command made a merchant in another cell");
        assert!(add("200").status.success());
    })
    .await;
}

#[tokio::test]
async fn an_older_database_becomes_the_default_cell_and_its_keys_go_on() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let pair = app.tokens(&merchant).await;
        let refused = start_as(&app, cell(3, false)).await.err().expect("it has merchants").to_string();
        assert!(refused.contains("cell.default"), "{refused}");
        assert_eq!(app.number("select count(*) from cell").await, 0, "it belongs to nobody yet");

        let app = app.replica_at(&app.database.url.clone(), |settings| settings.cell = cell(3, true)).await;
        let renewed = app.send(merchant.refresh(&pair.refresh)).await.tokens();
        assert_eq!(app.send(merchant.verify(&renewed.access)).await.status, 200);
        assert_eq!(app.number("select number from cell").await, 3);
    })
    .await;
}

#[tokio::test]
async fn what_another_cell_made_gets_the_usual_refusal_and_is_counted() {
    each_engine_with(cell_200, async |app| {
        let admin = Admin::operator(&app).await;
        let of_here = format!("0c8{}", "7".repeat(64));
        let (of_7, of_nobody) = (format!("007{}", "7".repeat(64)), "7".repeat(64));
        let call = |key: &str| {
            Call::post("/api/authorize").key(key).form(&[("client_id", "a"), ("client_secret", "b")])
        };
        let unknown = app.send(call(&of_here)).await;
        unknown.refused(401, "invalid_client");
        for key in [&of_7, &of_nobody] {
            assert_eq!(app.send(call(key)).await.text_without_id(), unknown.text_without_id());
        }

        let elsewhere = TestApp::with(app.database.engine, |settings| settings.cell = cell(7, false)).await;
        let pair = elsewhere.tokens(&elsewhere.merchant().await).await;
        let service = service_token(&app).await;
        assert_eq!(app.send(introspect_as(&service, &pair.access)).await.text(), r#"{"active":false}"#);
        let foreign = service_token(&elsewhere).await;
        app.send(introspect_as(&foreign, &pair.access)).await.refused(401, "invalid_client");

        let of_elsewhere = elsewhere.merchant().await;
        for path in
            [format!("/merchants/{}", of_elsewhere.id), format!("/credentials/{}", of_elsewhere.client_id)]
        {
            let told = admin.get(&path).await.problem(404, "not_found");
            assert!(told.contains("cell 200") && told.contains("cell 7"), "{told}");
        }
        let here = admin.get("/merchants/01a20d60-fef6-70c8-bce1-7286a391e4c4").await;
        assert!(!here.problem(404, "not_found").contains("cell"));

        let metrics = app.send_to_ops(Call::get("/metrics")).await.text();
        for (carried, count) in [("key", 2), ("token", 1), ("admin_token", 1), ("id", 2)] {
            let line = format!("tollgate_wrong_cell_calls_total{{carried=\"{carried}\"}} {count}");
            assert!(metrics.contains(&line), "no {line} in {metrics}");
        }
        assert!(metrics.contains("tollgate_refusals_total{reason=\"key_of_another_cell\"} 2"), "{metrics}");
    })
    .await;
}

#[tokio::test]
async fn a_merchant_that_another_cell_serves_gets_503_and_nothing_of_it_changes() {
    each_engine_with(cell_200, async |app| {
        let (admin, merchant) = (Admin::operator(&app).await, app.merchant().await);
        let pair = app.tokens(&merchant).await;
        let service = service_token(&app).await;
        assert_eq!(app.send(merchant.verify(&pair.access)).await.status, 200);
        let session = admin.get(&format!("/merchants/{}/sessions", merchant.id)).await.ok();
        let session = format!("/sessions/{}", text(&session["items"][0], "id"));

        // 7 is another cell, and -1 means that the merchant is on its way.
        for elsewhere in ["7", "-1"] {
            let moved = match elsewhere {
                "7" => "update merchants set home = 7, revision = revision + 1",
                _ => "update merchants set home = -1, revision = revision + 1",
            };
            app.run_sql(moved).await;
            for call in [
                merchant.authorize(),
                merchant.refresh(&pair.refresh),
                merchant.introspect(&pair.access),
                merchant.verify(&pair.access),
                merchant.revoke(&pair.access),
                introspect_as(&service, &pair.access),
            ] {
                let reply = app.send(call).await;
                assert_eq!(reply.status, 503, "{elsewhere}: {}", reply.text());
                assert!(reply.headers.contains_key("retry-after"));
            }
            assert_eq!(admin.delete(&session).await.status, 503);
            let renamed =
                admin.patch(&format!("/merchants/{}", merchant.id), serde_json::json!({ "name": "x" })).await;
            assert_eq!(renamed.status, 503, "{}", renamed.text());
        }

        app.run_sql("update merchants set home = 200, revision = revision + 1").await;
        assert_eq!(app.send(merchant.verify(&pair.access)).await.status, 200);
        app.send(merchant.refresh(&pair.refresh)).await.tokens();
        assert_eq!(app.number("select count(*) from sessions where revoked_at is not null").await, 0);
    })
    .await;
}

#[tokio::test]
async fn calls_are_counted_only_where_the_merchant_is_so_that_no_count_is_in_the_way_of_a_move() {
    each_engine_with(cell_200, async |app| {
        let merchant = app.merchant().await;
        let counted = async || {
            app.flush().await;
            let calls = app.number("select cast(coalesce(sum(calls), 0) as bigint) from call_counts").await;
            (app.number("select count(*) from exchanges").await, calls)
        };
        app.tokens(&merchant).await;
        assert_eq!(counted().await, (1, 1));
        app.run_sql("update merchants set home = 7, revision = revision + 1").await;
        assert_eq!(app.send(merchant.authorize()).await.status, 503);
        assert_eq!(counted().await, (2, 1), "the call is recorded, but another cell counts");
        app.run_sql("update merchants set home = 200, revision = revision + 1").await;
        app.tokens(&merchant).await;
        assert_eq!(counted().await, (3, 2));
    })
    .await;
}

#[tokio::test]
async fn an_operator_sees_that_a_merchant_is_elsewhere_and_its_users_and_tokens_are_not_here() {
    /// Moves the merchant of the owner. 7 is another cell, and -1 means that the merchant is on its way.
    const MOVES: [&str; 2] = [
        "update merchants set home = 7, revision = revision + 1 \
         where id = (select merchant_id from users where email = 'owner@harbour.example')",
        "update merchants set home = -1, revision = revision + 1 \
         where id = (select merchant_id from users where email = 'owner@harbour.example')",
    ];
    const BADGE: &str = "In another cell";
    each_engine_with(cell_200, async |app| {
        let (admin, moved, other) = (Admin::operator(&app).await, app.merchant().await, app.merchant().await);
        let of_moved = Admin::of(&app, Role::MerchantAdmin, Some(moved.id)).await;
        let owner = app.person("owner@harbour.example", Role::MerchantAdmin, Some(moved.id)).await;
        app.person("other@harbour.example", Role::MerchantAdmin, Some(other.id)).await;
        let operator = app.person("ops@harbour.example", Role::Operator, None).await;
        let listed = async |path| admin.get(path).await.ok()["items"].as_array().expect("a list").clone();
        let counts = async || (listed("/users").await.len(), listed("/tokens").await.len());
        assert_eq!(counts().await, (3, 2));
        assert!(!app.page(&operator, "/console/merchants").await.contains(BADGE));

        for moves in MOVES {
            app.run_sql(moves).await;
            assert_eq!(counts().await, (2, 1));
            for merchant in listed("/merchants").await {
                let is_moved = text(&merchant, "id") == moved.id.to_string();
                assert_eq!(merchant.get("elsewhere").is_some(), is_moved, "{merchant}");
            }
            assert!(app.page(&operator, "/console/merchants").await.contains(BADGE));

            admin.get(&format!("/users/{}", owner.id)).await.problem(404, "not_found");
            assert_eq!(of_moved.get("/users").await.status, 503);
            assert!(!app.is_signed_in(&owner).await);
            let again = app.send(sign_in_form(owner.email, PASSWORD)).await;
            assert!(!again.headers.contains_key("set-cookie"), "{}", again.status);
        }

        app.run_sql("update merchants set home = 200, revision = revision + 1 where home = -1").await;
        assert_eq!(counts().await, (3, 2));
        assert!(app.is_signed_in(&owner).await);
    })
    .await;
}

#[tokio::test]
async fn a_token_of_a_merchant_that_another_cell_serves_gets_503_unless_it_has_ended() {
    each_engine_with(cell_200, async |app| {
        let merchant = app.merchant().await.id;
        let live = Admin::of(&app, Role::MerchantAdmin, Some(merchant)).await;
        let ended = Admin::of(&app, Role::MerchantViewer, Some(merchant)).await;
        app.run_sql("update admin_tokens set revoked_at = 0 where role = 'merchant_viewer'").await;
        app.run_sql("update merchants set home = 7, revision = revision + 1").await;
        for (token, status) in [(&live, 503), (&ended, 401)] {
            for reply in [token.get("/users").await, app.send(introspect_as(&token.token, "junk")).await] {
                assert_eq!(reply.status, status, "{}", reply.text());
                assert_eq!(reply.headers.contains_key("retry-after"), status == 503);
            }
        }
    })
    .await;
}
