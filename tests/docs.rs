//! The documents: every page exists, its links work, and nothing is left out.

use strum::VariantArray;
use tollgate::domain::admin::{Permission, Role};
use tollgate::domain::reason::ErrorCode;

use crate::admin::{admin_token, introspect_as};
use crate::support::{Call, TestApp, each_engine};

const PAGES: [&str; 7] = [
    "/docs",
    "/docs/tokens",
    "/docs/errors",
    "/docs/webhooks",
    "/docs/addresses",
    "/docs/rotation",
    "/docs/reference",
];

async fn page(app: &TestApp, path: &str) -> String {
    let reply = app.send(Call::get(path)).await;
    assert_eq!(reply.status, 200, "{path}");
    assert_eq!(reply.header("content-type").as_deref(), Some("text/html; charset=utf-8"), "{path}");
    assert!(
        reply.header("content-security-policy").is_some_and(|policy| !policy.contains("unsafe")),
        "{path}"
    );
    reply.text()
}

#[tokio::test]
async fn a_visitor_finds_every_page_and_no_link_is_dead() {
    each_engine(async |app| {
        let root = app.send(Call::get("/")).await;
        assert_eq!((root.status, root.header("location").as_deref()), (307, Some("/docs")));
        for path in PAGES {
            let html = page(&app, path).await;
            for link in html.split("href=\"/").skip(1).map(|rest| rest.split('"').next().unwrap_or_default())
            {
                let path = link.split('#').next().unwrap_or_default();
                let reply = app.send(Call::get(&format!("/{path}"))).await;
                assert!(reply.status == 200 || reply.status == 303, "/{link}: {}", reply.status);
            }
        }
        app.send(Call::get("/docs/zebra")).await.refused(404, "invalid_request");
    })
    .await;
}

#[tokio::test]
async fn every_error_is_explained_where_its_answer_says() {
    each_engine(async |app| {
        let html = page(&app, "/docs/errors").await;
        for code in ErrorCode::VARIANTS {
            let name: &str = code.into();
            assert!(html.contains(&format!("id=\"{name}\"")), "{name} is not explained");
        }
        let refused = app.send(Call::post("/api/authorize")).await;
        let uri =
            refused.json()["error_uri"].as_str().expect("an error says where it is explained").to_owned();
        assert!(uri.ends_with("/docs/errors#invalid_client"), "{uri}");

        // Not only the errors of RFC 6749.
        let merchant = app.merchant().await;
        let rotate = |overlap: &str| {
            let call = merchant.call().to("/api/rotate_secret").header("idempotency-key", "once");
            call.form(&merchant.fields(&[("overlap_secs", overlap)]))
        };
        assert_eq!(app.send(rotate("60")).await.status, 201);
        let unpermitted = admin_token(&app, Role::Service, None, vec![Permission::Revoke]).await;
        for call in [rotate("61"), introspect_as(&unpermitted, "x")] {
            let refused = app.send(call).await;
            let uri = refused.json()["error_uri"].as_str().expect("it has one").to_owned();
            let (_, place) = uri.split_once('#').expect("it has its own place");
            assert!(html.contains(&format!("id=\"{place}\"")), "{uri} is not explained");
        }
    })
    .await;
}

#[tokio::test]
async fn the_reference_has_every_operation_of_the_document() {
    each_engine(async |app| {
        let html = page(&app, "/docs/reference").await;
        let document = app.send(Call::get("/openapi.json")).await.ok();
        for path in document["paths"].as_object().expect("the document has paths").values() {
            for operation in path.as_object().expect("a path has operations").values() {
                let id = operation["operationId"].as_str().expect("an operation has an id");
                assert!(html.contains(&format!("id=\"{id}\"")), "{id} is missing");
            }
        }
    })
    .await;
}
