//! The headers of a body: legal ones work, and for others the error says which header is wrong.

use crate::support::call::{BOUNDARY, json_object, multipart_body};
use crate::support::{Call, each_engine};

const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn every_legal_way_of_writing_the_label_of_a_multipart_body_works() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let body = multipart_body(&merchant.fields(&[]));
        for label in [
            "multipart/form-data; boundary=B ; charset=utf-8",
            "multipart/form-data ; boundary=B",
            "multipart/form-data;\tboundary=B\t",
            "multipart/form-data;; boundary=B",
            "multipart/form-data; boundary=B;",
            "multipart/form-data;boundary=\"B\"; charset=\"utf-8\"",
            "Multipart/Form-Data; BOUNDARY=B",
            "multipart/form-data; note=\"boundary=x; boundary=y\"; boundary=B",
            "multipart/form-data; boundary=\"\\B\"",
        ] {
            let call = merchant.call().body(Some(label), body.replace(BOUNDARY, "B"));
            let reply = app.send(call).await;
            assert_eq!(reply.status, 200, "{label}: {}", reply.text());
        }
        for boundary in ["----=_Part_1_2.3", "a/b:c=?", "=_next(1)"] {
            let label = format!("multipart/form-data; boundary={boundary}");
            let call = merchant.call().body(Some(&label), body.replace(BOUNDARY, boundary));
            let reply = app.send(call).await;
            assert_eq!(reply.status, 200, "{label}: {}", reply.text());
        }
    })
    .await;
}

#[tokio::test]
async fn a_label_that_is_wrong_is_blamed_and_not_the_body() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let body = multipart_body(&merchant.fields(&[])).replace(BOUNDARY, "B");
        for (label, said) in [
            ("multipart/form-data", "Content-Type: must have exactly one boundary"),
            ("multipart/form-data; boundary=\"\"", "Content-Type: must have exactly one boundary"),
            ("multipart/form-data; boundary=B; boundary=C", "Content-Type: must have exactly one boundary"),
            ("multipart/form-data; boundary=", "Content-Type: malformed"),
            ("multipart/form-data; boundary = B", "Content-Type: malformed"),
            ("multipart/form-data; boundary=\"B", "Content-Type: malformed"),
            ("multipart/form-data; boundary=B C", "Content-Type: malformed"),
            ("multipart/form-data; boundary=B, text/plain", "Content-Type: malformed"),
            ("multipart/form-data; boundary=\"B\"C", "Content-Type: malformed"),
        ] {
            let reply = app.send(merchant.call().body(Some(label), body.clone())).await;
            assert_eq!(reply.refused(400, "invalid_request"), said, "{label}");
        }
        let twice = merchant.authorize().header("content-type", FORM);
        assert_eq!(app.send(twice).await.refused(400, "invalid_request"), "Content-Type: sent twice");
    })
    .await;
}

#[tokio::test]
async fn a_compressed_body_is_told_what_is_taken_instead() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let operator = crate::admin::Admin::operator(&app).await.token;
        let coded = |call: Call| call.header("content-encoding", "gzip");
        let admin = Call::post("/admin/v1/merchants").header("authorization", format!("Bearer {operator}"));
        let calls = [
            merchant.authorize(),
            merchant.introspect("x"),
            admin.body(Some("application/json"), "{}"),
            crate::console::people::sign_in_form("ada@harbour.example", "x"),
        ];
        for call in calls.map(coded) {
            let reply = app.send(call).await;
            assert_eq!(reply.status, 415, "{}", reply.text());
            assert_eq!(reply.header("accept-encoding").as_deref(), Some("identity"));
        }
        for coding in ["br", "identity, gzip", "x-unknown"] {
            let reply = app.send(merchant.authorize().header("content-encoding", coding)).await;
            let said = reply.refused(415, "invalid_request");
            assert!(said.starts_with("Content-Encoding: "), "{said}");
        }
        for none in ["identity", "", "utf-8", "Identity, UTF-8"] {
            app.send(merchant.authorize().header("content-encoding", none)).await.tokens();
        }
        // Only the type is wrong here, so the answer asks for no coding.
        let reply = app.send(merchant.call().body(Some("text/plain"), "x")).await;
        reply.refused(415, "invalid_request");
        assert_eq!(reply.header("accept-encoding"), None);
    })
    .await;
}

#[tokio::test]
async fn a_byte_order_mark_is_named() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let json = json_object(&merchant.fields(&[]));
        let form = format!("client_id={}&client_secret={}", merchant.client_id, merchant.client_secret);
        for (label, body) in [("application/json", &json), (FORM, &json), (FORM, &form)] {
            let call = merchant.call().body(Some(label), format!("\u{feff}{body}"));
            let said = app.send(call).await.refused(400, "invalid_request");
            assert!(said.contains("byte order mark"), "{said}");
        }
        let operator = crate::admin::Admin::operator(&app).await.token;
        let call = Call::post("/admin/v1/merchants").header("authorization", format!("Bearer {operator}"));
        let reply = app.send(call.body(Some("application/json"), "\u{feff}{\"name\":\"a\"}")).await;
        let said = reply.problem(400, "invalid_request");
        assert!(said.contains("byte order mark"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn the_name_of_a_part_is_a_parameter_and_nothing_inside_of_another() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let label = format!("multipart/form-data; boundary={BOUNDARY}");
        let send = async |disposition: &str| {
            let part = format!("--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\nx\r\n");
            let rest = multipart_body(&merchant.fields(&[]));
            app.send(merchant.call().body(Some(&label), format!("{part}{rest}"))).await
        };
        for other in [
            "form-data; name=\"own\"; filename=\"x; name=client_secret\"",
            "form-data; filename=\"x; name=client_secret\"; name=own",
            "form-data; name=\"own\"; filename=\"a\\\"; name=client_secret\"",
            "form-data ;name=own",
            "form-data; name=\"own\"; filename*=UTF-8''client_secret",
        ] {
            send(other).await.tokens();
        }
        for (bad, said) in [
            ("form-data; filename=\"x; name=client_secret\"", "a part has no name, or two"),
            ("form-data; name=own; name=client_secret", "a part has no name, or two"),
            ("form-data; name=\"own", "the Content-Disposition of a part is malformed"),
            ("form-data; name=own, name=client_secret", "the Content-Disposition of a part is malformed"),
        ] {
            assert_eq!(send(bad).await.refused(400, "invalid_request"), said, "{bad}");
        }
        // The value is that of the part, whatever its other parameters are.
        assert_eq!(
            send("form-data; filename=f; name=\"client_id\"").await.refused(400, "invalid_request"),
            "client_id: sent twice"
        );
    })
    .await;
}
