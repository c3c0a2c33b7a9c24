//! Bodies that try to break a parser: each is refused at once, and the next call works.

use crate::support::call::BOUNDARY;
use crate::support::each_engine;

/// Bodies and their content types that must be refused.
fn malformed() -> Vec<(&'static str, String, Vec<u8>)> {
    let multipart = format!("multipart/form-data; boundary={BOUNDARY}");
    let part = |head: &str, value: &str| format!("--{BOUNDARY}\r\n{head}\r\n\r\n{value}\r\n");
    let named = part("Content-Disposition: form-data; name=\"client_id\"", "x");
    let end = format!("--{BOUNDARY}--\r\n");
    let deep = |open: &str| open.repeat(16 * 1024 / open.len());
    let json = |text: &str| ("application/json".to_owned(), text.as_bytes().to_vec());
    let form = |text: &[u8]| ("application/x-www-form-urlencoded".to_owned(), text.to_vec());
    let of = |text: String| (multipart.clone(), text.into_bytes());
    let labelled = |label: &str| (label.to_owned(), format!("{named}{end}").into_bytes());

    let all = [
        ("no final boundary", of(named.clone())),
        ("broken off in the value", of(named[..named.len() - 4].to_owned())),
        ("broken off in the boundary", of(format!("{named}--{BOUNDARY}"))),
        ("a part without a name", of(format!("{}{end}", part("Content-Disposition: form-data", "x")))),
        ("a part without a head", of(format!("--{BOUNDARY}\r\n\r\nx\r\n{end}"))),
        (
            "a part's head without end",
            of(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"a\"")),
        ),
        ("a very long head", of(format!("--{BOUNDARY}\r\n{}", deep("X: y\r\n")))),
        ("ten thousand parts", of(deep(&format!("--{BOUNDARY}\r\n\r\n\r\n")))),
        ("no boundary at all", labelled("multipart/form-data")),
        ("an empty boundary", labelled("multipart/form-data; boundary=")),
        ("two boundaries", labelled(&format!("multipart/form-data; boundary={BOUNDARY}; boundary=other"))),
        ("one boundary twice", labelled(&format!("{multipart}; Boundary={BOUNDARY}"))),
        ("another boundary", labelled("multipart/form-data; boundary=other")),
        ("empty multipart", of(String::new())),
        ("no JSON", json("")),
        ("JSON broken off", json("{\"client_id\":\"x\"")),
        ("JSON with more behind it", json("{} {}")),
        ("a JSON array", json("[\"client_id\"]")),
        ("a JSON string", json("\"client_id\"")),
        ("deep JSON arrays", json(&format!("{{\"a\":{}", deep("["))[..16 * 1024])),
        ("deep JSON objects", json(&deep("{\"a\":")[..16 * 1024 - 4])),
        ("deep and closed", json(&format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000)))),
        ("a BOM before JSON", json("\u{feff}{\"client_id\":\"x\",\"client_secret\":\"y\"}")),
        ("a lone high surrogate", json(r#"{"client_id":"\ud800"}"#)),
        ("a lone low surrogate", json(r#"{"client_id":"\udc00x"}"#)),
        ("a NUL unescaped in JSON", json("{\"client_id\":\"\0\"}")),
        ("JSON not UTF-8", ("application/json".to_owned(), b"{\"client_id\":\"\xff\"}".to_vec())),
        ("a form not UTF-8", form(b"client_id=\xff")),
        ("a form not UTF-8 once decoded", form(b"client_id=%FF%FE")),
        ("a JSON form broken off", form(b"{\"client_id\"")),
        ("many fields", form(deep("a&b&").as_bytes())),
    ];
    all.into_iter().map(|(what, (label, body))| (what, label, body)).collect()
}

#[tokio::test]
async fn a_malformed_body_is_refused_and_harms_nobody() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        for (what, label, body) in malformed() {
            let reply = app.send(merchant.call().body(Some(&label), body)).await;
            assert!(matches!(reply.status, 400 | 413 | 415), "{what}: {} {}", reply.status, reply.text());
            assert_eq!(reply.json()["error"], "invalid_request", "{what}");
        }
        app.tokens(&merchant).await;
    })
    .await;
}

#[tokio::test]
async fn odd_characters_in_values_are_only_values() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        for odd in ["\u{feff}", "a\r\nb", "\u{1b}[31m", "' or 1=1 --", "\u{202e}", "😀", "%00", "{", "\\"] {
            let fields = [("client_id", odd), ("client_secret", odd)];
            for call in [
                merchant.call().form(&fields),
                merchant.call().json(&fields),
                merchant.call().multipart(&fields),
            ] {
                app.send(call).await.refused(401, "invalid_client");
            }
            let fields = merchant.fields(&[("refresh_token", odd)]);
            for call in [
                merchant.call().form(&fields),
                merchant.call().json(&fields),
                merchant.call().multipart(&fields),
            ] {
                app.send(call).await.refused(400, "invalid_grant");
            }
        }
        let boms = merchant.fields(&[("\u{feff}client_id", "x")]);
        app.send(merchant.call().form(&boms)).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn content_types_are_one_of_three_and_given_once() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        for label in
            ["text/plain", "application/xml", "text/json", "application/json+x", "", "*/*", "multipart/mixed"]
        {
            let call = merchant.authorize().without("content-type").header("content-type", label);
            app.send(call).await.refused(415, "invalid_request");
        }
        let twice = merchant.authorize().header("content-type", "application/json");
        app.send(twice).await.refused(400, "invalid_request");
    })
    .await;
}
