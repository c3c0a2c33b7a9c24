//! `/docs`: documents for integrators, built into the binary. The tests run every code snippet in them.
//!
//! Pages are rendered once, when the router is made. The issuer is the only setting that they contain.

mod errors;
mod reference;

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::Value;

use self::errors::{ERRORS, ErrorHelp};
use self::reference::Group;
use super::Shared;
use super::console::{assets, guard};
use super::error::Failure;

/// The `error_uri` of an error (RFC 6749 5.2): the page that explains it, and the place there if it has one.
pub fn error_uri(issuer: &str, code: &str) -> String {
    let is_explained = ERRORS.iter().any(|error| error.code == code);
    if is_explained { format!("{issuer}/docs/errors#{code}") } else { format!("{issuer}/docs/errors") }
}

/// `/` and everything below `/docs`. `document` is the OpenAPI document.
pub fn routes(issuer: &str, document: &[u8]) -> Router<Arc<Shared>> {
    let pages = Arc::new(pages(issuer, document));
    let page = move |name: String| {
        let found = pages.get(name.as_str()).cloned();
        found.map_or_else(
            || Failure::of_status(StatusCode::NOT_FOUND).into_response(),
            |body| ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response(),
        )
    };
    let start = page.clone();
    let is_https = issuer.starts_with("https:");
    Router::new()
        .route("/", get(async || Redirect::temporary("/docs")))
        .route("/docs", get(async move || start(String::new())))
        .route("/docs/{page}", get(async move |Path(name): Path<String>| page(name)))
        .layer(map_response(move |mut response: Response| async move {
            guard::put_headers(response.headers_mut(), is_https);
            let an_hour = HeaderValue::from_static("public, max-age=3600");
            response.headers_mut().insert(header::CACHE_CONTROL, an_hour);
            response
        }))
}

/// The name of each page in its path, and its title. The first one is `/docs` itself.
const TITLES: [(&str, &str); 7] = [
    ("", "Start here"),
    ("tokens", "Keep a token fresh"),
    ("errors", "Errors"),
    ("webhooks", "Webhooks"),
    ("addresses", "Addresses"),
    ("rotation", "Moving to the next key"),
    ("reference", "API reference"),
];

fn pages(issuer: &str, document: &[u8]) -> HashMap<&'static str, Bytes> {
    let document: Value = serde_json::from_slice(document).expect("the document was written by this program");
    TITLES.iter().map(|(name, _)| (*name, page(name, issuer, &document))).collect()
}

fn page(name: &str, issuer: &str, document: &Value) -> Bytes {
    let frame = Frame::new(name, issuer);
    let text = match name {
        "tokens" => Tokens { frame, snippets: &TOKEN_SNIPPETS }.render(),
        "errors" => Errors { frame, errors: &ERRORS }.render(),
        "webhooks" => Webhooks { frame, snippets: &VERIFY_SNIPPETS }.render(),
        "addresses" => Addresses { frame }.render(),
        "rotation" => Rotation { frame }.render(),
        "reference" => Reference { frame, groups: reference::groups(document) }.render(),
        _ => Start { frame }.render(),
    };
    Bytes::from(text.expect("a String takes any text"))
}

/// The frame of every page.
struct Frame {
    title: &'static str,
    issuer: String,
    style: String,
    icon: String,
    items: Vec<Item>,
}

struct Item {
    label: &'static str,
    href: String,
    is_current: bool,
}

impl Frame {
    fn new(name: &str, issuer: &str) -> Self {
        let item = |(of, label): &(&str, &'static str)| Item {
            label,
            href: if of.is_empty() { "/docs".to_owned() } else { format!("/docs/{of}") },
            is_current: *of == name,
        };
        let items: Vec<Item> = TITLES.iter().map(item).collect();
        Self {
            title: items.iter().find(|item| item.is_current).map_or("Documents", |item| item.label),
            issuer: issuer.to_owned(),
            style: assets::style_url(),
            icon: assets::icon_url(),
            items,
        }
    }
}

struct Snippet {
    language: &'static str,
    code: &'static str,
}

const TOKEN_SNIPPETS: [Snippet; 7] = [
    Snippet { language: "curl", code: include_str!("snippets/token.sh") },
    Snippet { language: "Python", code: include_str!("snippets/token.py") },
    Snippet { language: "Node", code: include_str!("snippets/token.mjs") },
    Snippet { language: "PHP", code: include_str!("snippets/token.php") },
    Snippet { language: "Go", code: include_str!("snippets/token.go") },
    Snippet { language: "Java", code: include_str!("snippets/Token.java") },
    Snippet { language: "Rust", code: include_str!("snippets/token.rs") },
];

const VERIFY_SNIPPETS: [Snippet; 6] = [
    Snippet { language: "Python", code: include_str!("snippets/verify.py") },
    Snippet { language: "Node", code: include_str!("snippets/verify.mjs") },
    Snippet { language: "PHP", code: include_str!("snippets/verify.php") },
    Snippet { language: "Go", code: include_str!("snippets/verify.go") },
    Snippet { language: "Java", code: include_str!("snippets/Verify.java") },
    Snippet { language: "Rust", code: include_str!("snippets/verify.rs") },
];

#[derive(Template)]
#[template(path = "docs_start.html")]
struct Start {
    frame: Frame,
}

#[derive(Template)]
#[template(path = "docs_tokens.html")]
struct Tokens {
    frame: Frame,
    snippets: &'static [Snippet],
}

#[derive(Template)]
#[template(path = "docs_errors.html")]
struct Errors {
    frame: Frame,
    errors: &'static [ErrorHelp],
}

#[derive(Template)]
#[template(path = "docs_webhooks.html")]
struct Webhooks {
    frame: Frame,
    snippets: &'static [Snippet],
}

#[derive(Template)]
#[template(path = "docs_addresses.html")]
struct Addresses {
    frame: Frame,
}

#[derive(Template)]
#[template(path = "docs_rotation.html")]
struct Rotation {
    frame: Frame,
}

#[derive(Template)]
#[template(path = "docs_reference.html")]
struct Reference {
    frame: Frame,
    groups: Vec<Group>,
}
