//! The console's own files, built into the binary. Each has its hash in its name, so browsers can cache it
//! for ever and never use an old version.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::http::error::Failure;

struct Asset {
    /// The name with its hash, such as `console-0123456789abcdef.css`.
    name: String,
    content_type: &'static str,
    body: &'static str,
}

fn asset(stem: &str, extension: &str, content_type: &'static str, body: &'static str) -> Asset {
    let hash = hex::encode(&Sha256::digest(body)[..8]);
    Asset { name: format!("{stem}-{hash}.{extension}"), content_type, body }
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| asset("console", "css", "text/css; charset=utf-8", include_str!("console.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| asset("console", "js", "text/javascript; charset=utf-8", include_str!("console.js")));
static ICON: LazyLock<Asset> =
    LazyLock::new(|| asset("icon", "svg", "image/svg+xml", include_str!("icon.svg")));

pub(in crate::http) fn style_url() -> String {
    format!("/console/assets/{}", STYLE.name)
}

pub(super) fn script_url() -> String {
    format!("/console/assets/{}", SCRIPT.name)
}

pub(in crate::http) fn icon_url() -> String {
    format!("/console/assets/{}", ICON.name)
}

/// Serves a file by its name with the hash. Any other name is 404.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let Some(asset) = [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(|asset| asset.name == name) else {
        return Failure::of_status(StatusCode::NOT_FOUND).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    (headers, asset.body).into_response()
}
