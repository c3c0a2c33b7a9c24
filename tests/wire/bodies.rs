//! The three body types mean the same.

use serde_json::json;

use crate::support::call::{BOUNDARY, json_object, multipart_body};
use crate::support::each_engine;

const URLENCODED: Option<&str> = Some("application/x-www-form-urlencoded");
const JSON: Option<&str> = Some("application/json");

#[tokio::test]
async fn every_kind_of_body_starts_a_session() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let fields = merchant.fields(&[]);
        let form = format!("client_id={}&client_secret={}", merchant.client_id, merchant.client_secret);
        let json = json_object(&fields);
        let multipart = multipart_body(&fields);
        let label = |rest: &str| format!("multipart/form-data; {rest}");
        let table = [
            (URLENCODED.map(str::to_owned), form.clone()),
            (Some("Application/X-WWW-Form-URLencoded; charset=utf-8".to_owned()), form.clone()),
            (None, form.clone()),
            (None, format!("{form}\r\n")),
            (None, format!("&{form}&&")),
            (JSON.map(str::to_owned), json.clone()),
            (Some("APPLICATION/json;charset=UTF-8".to_owned()), format!("\r\n\t {json} \n")),
            // What curl sends with --data-raw '{...}'.
            (URLENCODED.map(str::to_owned), json.clone()),
            (URLENCODED.map(str::to_owned), format!("\n  {json}")),
            (None, json),
            (Some(label(&format!("boundary={BOUNDARY}"))), multipart.clone()),
            (Some(label(&format!("boundary=\"{BOUNDARY}\""))), multipart.clone()),
            (Some(label(&format!("charset=utf-8; boundary={BOUNDARY}"))), multipart.clone()),
            (Some(label(&format!("boundary={BOUNDARY}"))), format!("preamble\r\n{multipart}epilogue")),
        ];
        for (label, body) in table {
            let reply = app.send(merchant.call().body(label.as_deref(), body.clone())).await;
            assert_eq!(reply.status, 200, "{label:?} {body}: {}", reply.text());
        }
    })
    .await;
}

#[tokio::test]
async fn a_field_sent_twice_is_refused_in_every_encoding() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let token = app.tokens(&merchant).await.refresh;
        let (id, secret) = (merchant.client_id.as_str(), merchant.client_secret.as_str());
        let table = [
            ("client_id", id),
            ("client_id", ""),
            ("client_secret", secret),
            ("client_secret", "another"),
            ("refresh_token", token.as_str()),
            ("refresh_token", ""),
        ];
        for (name, value) in table {
            let fields = merchant.fields(&[("refresh_token", &token), (name, value)]);
            for call in [
                merchant.call().form(&fields),
                merchant.call().json(&fields),
                merchant.call().multipart(&fields),
            ] {
                let description = app.send(call).await.refused(400, "invalid_request");
                assert_eq!(description, format!("{name}: sent twice"));
            }
        }

        let fields = merchant.fields(&[("x", "1"), ("x", "1")]);
        for call in
            [merchant.call().form(&fields), merchant.call().json(&fields), merchant.call().multipart(&fields)]
        {
            assert_eq!(app.send(call).await.refused(400, "invalid_request"), "a field: sent twice");
        }
        app.send(merchant.refresh(&token)).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn two_spellings_of_one_name_are_one_name() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (id, secret) = (&merchant.client_id, &merchant.client_secret);
        let table = [
            (JSON, format!(r#"{{"client_id":"{id}","client_secret":"{secret}","client\u005fid":"{id}"}}"#)),
            (JSON, format!(r#"{{"\u0063lient_id":"{id}","client_secret":"{secret}","client_id":null}}"#)),
            (URLENCODED, format!("client_id={id}&client_secret={secret}&client%5Fid={id}")),
            (URLENCODED, format!("client_id={id}&client_secret={secret}&client_id")),
        ];
        for (label, body) in table {
            let description =
                app.send(merchant.call().body(label, body)).await.refused(400, "invalid_request");
            assert_eq!(description, "client_id: sent twice");
        }
        let escaped = format!(r#"{{"client\u005fid":"{id}","client_secret":"{secret}"}}"#);
        app.send(merchant.call().body(JSON, escaped)).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn an_empty_field_is_one_not_sent() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let fields = merchant.fields(&[("refresh_token", ""), ("grant_type", "")]);
        app.send(merchant.call().form(&fields)).await.tokens();
        app.send(merchant.call().json(&fields)).await.tokens();
        app.send(merchant.call().multipart(&fields)).await.tokens();
        let null = json!({ "client_id": merchant.client_id, "client_secret": merchant.client_secret,
            "refresh_token": null });
        app.send(merchant.call().body(JSON, null.to_string())).await.tokens();
        assert_eq!(app.number("select count(*) from sessions").await, 4);

        for name in ["client_id", "client_secret"] {
            let fields: Vec<_> =
                merchant.fields(&[]).into_iter().map(|(n, v)| (n, if n == name { "" } else { v })).collect();
            for call in [
                merchant.call().form(&fields),
                merchant.call().json(&fields),
                merchant.call().multipart(&fields),
            ] {
                assert_eq!(app.send(call).await.refused(400, "invalid_request"), format!("{name}: missing"));
            }
        }
        let fields = merchant.fields(&[("refresh_token", "")]);
        let call = merchant.call().to("/api/refresh_token").form(&fields);
        assert_eq!(app.send(call).await.refused(400, "invalid_request"), "refresh_token: missing");
    })
    .await;
}

#[tokio::test]
async fn unknown_fields_are_ignored_whatever_they_hold() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let (id, secret) = (&merchant.client_id, &merchant.client_secret);
        let more = merchant.fields(&[("merchant_id", "1"), ("scope", "all"), ("é", "\u{1f600}"), ("", "")]);
        app.send(merchant.call().form(&more)).await.tokens();
        app.send(merchant.call().json(&more)).await.tokens();
        app.send(merchant.call().multipart(&more)).await.tokens();
        let nested = json!({ "client_id": id, "client_secret": secret, "a": [1, { "client_id": "x" }],
            "b": true, "c": 1.5e300, "d": { "client_id": "y" } });
        app.send(merchant.call().body(JSON, nested.to_string())).await.tokens();

        for value in [json!(1), json!(true), json!([id]), json!({ "id": id })] {
            let wrong = json!({ "client_id": value, "client_secret": secret });
            let reply = app.send(merchant.call().body(JSON, wrong.to_string())).await;
            assert_eq!(reply.refused(400, "invalid_request"), "client_id: must be a string");
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_fields_and_their_number_have_limits() {
    const BODY: usize = 16 * 1024;
    const FIELD: usize = 4 * 1024;
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let send = async |more: &[(&str, &str)]| {
            let fields = merchant.fields(more);
            let calls = [
                merchant.call().form(&fields),
                merchant.call().json(&fields),
                merchant.call().multipart(&fields),
            ];
            let [form, json, multipart] = calls.map(|call| app.send(call));
            [form.await, json.await, multipart.await]
        };

        let (full, over) = ("x".repeat(FIELD), "x".repeat(FIELD + 1));
        for reply in send(&[("note", &full)]).await {
            reply.tokens();
        }
        for reply in send(&[("grant_type", &over)]).await {
            assert_eq!(reply.refused(400, "invalid_request"), "grant_type: longer than 4 KiB");
        }
        for reply in send(&[(&over, "")]).await {
            reply.refused(400, "invalid_request");
        }

        let names: Vec<String> = (0..31).map(|number| format!("f{number}")).collect();
        let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        for reply in send(&more[..30]).await {
            reply.tokens();
        }
        for reply in send(&more).await {
            assert_eq!(reply.refused(400, "invalid_request"), "more than 32 fields");
        }

        let form = format!("client_id={}&client_secret={}", merchant.client_id, merchant.client_secret);
        let padded = |length: usize| format!("{form}{}", "&".repeat(length - form.len()));
        app.send(merchant.call().body(URLENCODED, padded(BODY))).await.tokens();
        app.send(merchant.call().body(URLENCODED, padded(BODY + 1))).await.refused(413, "invalid_request");
    })
    .await;
}

#[tokio::test]
async fn grant_type_must_agree_with_the_fields() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let token = app.tokens(&merchant).await.refresh;
        let (authorize, refresh) = ("/api/authorize", "/api/refresh_token");
        let table = [
            (authorize, "client_credentials", "", 200, ""),
            (authorize, "refresh_token", &token, 200, ""),
            (refresh, "refresh_token", &token, 200, ""),
            (authorize, "", &token, 200, ""),
            (authorize, "client_credentials", &token, 400, "invalid_request"),
            (refresh, "client_credentials", &token, 400, "invalid_request"),
            (authorize, "refresh_token", "", 400, "invalid_request"),
            (refresh, "refresh_token", "", 400, "invalid_request"),
            (authorize, "authorization_code", "", 400, "unsupported_grant_type"),
            (authorize, "password", &token, 400, "unsupported_grant_type"),
            (refresh, "Refresh_Token", &token, 400, "unsupported_grant_type"),
        ];
        for (path, grant_type, token, status, error) in table {
            let fields = merchant.fields(&[("grant_type", grant_type), ("refresh_token", token)]);
            let reply = app.send(merchant.call().to(path).form(&fields)).await;
            match status {
                200 => drop(reply.tokens()),
                _ => drop(reply.refused(status, error)),
            }
        }
    })
    .await;
}
