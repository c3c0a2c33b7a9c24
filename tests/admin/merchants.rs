//! Merchants and licences.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::admin::Role;

use super::{Admin, authorize, text, verify};
use crate::support::each_engine;

#[tokio::test]
async fn a_merchant_is_made_shown_listed_and_changed() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let made = operator.post("/merchants", json!({ "name": "Acme", "gateway": "g" })).await.created();
        let path = format!("/merchants/{}", text(&made, "id"));
        assert_eq!(operator.get(&path).await.ok(), made);
        assert_eq!(made["licences"], json!({ "api_keys": null, "enhanced_security": null }));
        assert_eq!(operator.get("/merchants").await.ok(), json!({ "items": [made], "next_cursor": null }));
        let changed = operator.patch(&path, json!({ "name": "Acme Ltd", "status": "suspended" })).await.ok();
        assert_eq!((text(&changed, "name"), text(&changed, "status")), ("Acme Ltd", "suspended"));
        assert_eq!(text(&changed, "gateway"), "g");
    })
    .await;
}

#[tokio::test]
async fn a_change_against_a_version_that_is_gone_is_refused() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        for path in [format!("/merchants/{merchant}"), format!("/api-keys/{}", text(&key, "id"))] {
            let seen = operator.get(&path).await.header("etag").expect("an object has a version");
            app.advance(TimeDelta::seconds(1));
            operator.patch(&path, json!({ "name": "first" })).await.ok();
            let call = operator.call(axum::http::Method::PATCH, &path).header("if-match", &seen);
            let late = app.send(call.json_value(&json!({ "name": "second" }))).await;
            late.problem(412, "version_mismatch");
            assert_eq!(text(&operator.get(&path).await.ok(), "name"), "first");

            // One tag of a list is enough.
            let now = operator.get(&path).await.header("etag").expect("an object has a version");
            let call = operator.call(axum::http::Method::PATCH, &path);
            let call = call.header("if-match", format!("\"x\", {now}, \"y\""));
            app.send(call.json_value(&json!({ "name": "second" }))).await.ok();
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_is_an_object_and_mistakes_in_it_are_told_in_the_words_of_json() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let rotate = format!("/api-keys/{}/rotate", text(&key, "id"));
        for (path, body, told) in [
            ("/merchants", json!(["Acme", "g"]), "the body must be a JSON object"),
            ("/merchants", json!("Acme"), "the body must be a JSON object"),
            ("/merchants", json!({ "name": 5, "gateway": "g" }), "integer, expected a string"),
            (&rotate, json!({ "overlap_secs": "not-told" }), "string, expected a whole number"),
            (&rotate, json!({ "overlap_secs": 1.5 }), "floating point, expected a whole number"),
        ] {
            let reply = operator.post(path, body).await;
            reply.problem(400, "invalid_request");
            let is_told = reply.text().contains(told) && !reply.text().contains("not-told");
            assert!(is_told, "{}", reply.text());
        }
    })
    .await;
}

#[tokio::test]
async fn fields_that_nobody_may_set_are_refused() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        for field in ["id", "merchant_id", "created_at", "revision", "secret_hash", "leaked"] {
            let mut body = json!({ "name": "n", "gateway": "g" });
            body[field] = json!("x");
            let detail = operator.post("/merchants", body).await.problem(400, "invalid_request");
            assert!(detail.contains(field), "{detail}");
            let patch =
                operator.patch(&format!("/api-keys/{}", text(&key, "id")), json!({ field: "x" })).await;
            patch.problem(400, "invalid_request");
        }
    })
    .await;
}

#[tokio::test]
async fn without_its_licence_a_product_can_neither_be_made_nor_used() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let credentials = operator.credentials(&key).await;
        let tokens = app.send(authorize(&key, &credentials)).await.tokens();
        let licence = |product| format!("/merchants/{merchant}/licences/{product}");

        operator.put(&licence("enhanced_security"), json!({ "active": false })).await.ok();
        app.send(authorize(&key, &credentials)).await.refused(400, "unauthorized_client");
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 403);
        let path = format!("/api-keys/{}/credentials", text(&key, "id"));
        operator.post(&path, json!({})).await.problem(409, "not_licensed");
        let switch = format!("/credentials/{}", text(&credentials, "client_id"));
        operator.patch(&switch, json!({ "enabled": true })).await.problem(409, "not_licensed");

        operator.put(&licence("api_keys"), json!({ "active": false })).await.ok();
        app.send(authorize(&key, &credentials)).await.refused(401, "invalid_client");
        let more = json!({ "name": "k", "environment": "live" });
        let refused = operator.post(&format!("/merchants/{merchant}/api-keys"), more).await;
        refused.problem(409, "not_licensed");

        for product in ["api_keys", "enhanced_security"] {
            operator.put(&licence(product), json!({ "active": true })).await.ok();
        }
        app.send(authorize(&key, &credentials)).await.tokens();
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_licence_lapses_at_its_second_and_not_before() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let credentials = operator.credentials(&key).await;
        let tokens = app.send(authorize(&key, &credentials)).await.tokens();
        let end = app.now().plus(TimeDelta::minutes(10));
        let grant = json!({ "active": true, "expires_at": end.to_rfc3339() });
        operator.put(&format!("/merchants/{merchant}/licences/enhanced_security"), grant).await.ok();
        app.advance(TimeDelta::minutes(10) - TimeDelta::seconds(1));
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 200);
        app.advance(TimeDelta::seconds(1));
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 403);
        app.send(authorize(&key, &credentials)).await.refused(400, "unauthorized_client");
    })
    .await;
}

#[tokio::test]
async fn a_suspended_merchant_is_stopped_and_an_active_one_goes_on() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let credentials = operator.credentials(&key).await;
        let tokens = app.send(authorize(&key, &credentials)).await.tokens();
        let path = format!("/merchants/{merchant}");
        operator.patch(&path, json!({ "status": "suspended" })).await.ok();
        app.send(authorize(&key, &credentials)).await.refused(401, "invalid_client");
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 401);
        operator.patch(&path, json!({ "status": "active" })).await.ok();
        assert_eq!(app.send(verify(&key, &tokens.access)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn pages_follow_each_other_and_a_cursor_fits_one_list_alone() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let mut made = Vec::new();
        for number in 0..5 {
            app.advance(TimeDelta::milliseconds(2));
            let body = json!({ "name": format!("M{number}"), "gateway": "g" });
            made.push(operator.post("/merchants", body).await.created());
        }
        made.reverse();
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let query = cursor.map(|cursor: String| format!("&cursor={cursor}")).unwrap_or_default();
            let page = operator.get(&format!("/merchants?limit=2{query}")).await.ok();
            seen.extend(page["items"].as_array().expect("a list").clone());
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            let Some(next) = &cursor else { break };
            let elsewhere = operator.get(&format!("/tokens?cursor={next}")).await;
            elsewhere.problem(400, "invalid_request");
            let mut altered = next.clone().into_bytes();
            altered[20] ^= 1;
            let altered = String::from_utf8_lossy(&altered).into_owned();
            operator.get(&format!("/merchants?cursor={altered}")).await.problem(400, "invalid_request");
        }
        assert_eq!(seen, made);
        for limit in ["0", "201", "-1", "many"] {
            operator.get(&format!("/merchants?limit={limit}")).await.problem(400, "invalid_request");
        }
        let before = text(&made[2], "id");
        assert_eq!(
            operator.get(&format!("/merchants?before={before}")).await.ok()["items"],
            json!(made[3..])
        );
    })
    .await;
}

#[tokio::test]
async fn merchants_are_found_by_a_part_of_their_name() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let mut made = Vec::new();
        for name in ["Blue Harbour", "Hill", "harbour 100% = !"] {
            app.advance(TimeDelta::milliseconds(2));
            let merchant =
                operator.post("/merchants", json!({ "name": name, "gateway": "g" })).await.created();
            made.push(text(&merchant, "id").to_owned());
        }
        let bound = Admin::of(&app, Role::MerchantViewer, made[0].parse().ok()).await;
        let found = async |by: &Admin, query: &str| {
            let list = by.get(&format!("/merchants?name={query}")).await.ok();
            let items = list["items"].as_array().expect("a list");
            items.iter().map(|one| text(one, "id").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(&operator, "HARBOUR").await, [made[2].clone(), made[0].clone()]);
        assert_eq!(found(&operator, "100%25").await, [made[2].clone()]);
        assert_eq!(found(&operator, &format!("harbour&before={}", made[2])).await, [made[0].clone()]);
        assert!(found(&operator, "valley").await.is_empty());
        assert_eq!(found(&bound, "harBOUR").await, [made[0].clone()]);
        assert!(found(&bound, "hill").await.is_empty(), "another merchant's name");
    })
    .await;
}

#[tokio::test]
async fn no_list_takes_a_parameter_that_it_does_not_know() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        for path in [
            "/merchants".to_owned(),
            "/users".to_owned(),
            "/tokens".to_owned(),
            "/audit-events".to_owned(),
            "/audit-events/latest".to_owned(),
            format!("/merchants/{merchant}/api-keys"),
            format!("/merchants/{merchant}/sessions"),
            format!("/merchants/{merchant}/exchanges"),
            format!("/merchants/{merchant}/webhook-deliveries"),
            format!("/merchants/{merchant}/audit-events"),
            format!("/api-keys/{}/credentials", text(&key, "id")),
        ] {
            operator.get(&format!("{path}?limit=1")).await.ok();
            operator.get(&format!("{path}?limit=1&page=2")).await.problem(400, "invalid_request");
        }
    })
    .await;
}
