//! `/healthz` and `/readyz`: for whoever restarts us, and for whoever sends us traffic.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Shared;
use super::error::Failure;

/// The process is up. Asks nothing of the store.
pub async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// The store answers, the schema is there, and the server is not about to stop.
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Result<Response, Failure> {
    if shared.is_draining.load(Ordering::Relaxed) {
        let mut failure = Failure::of_status(StatusCode::SERVICE_UNAVAILABLE);
        failure.description = "the server is stopping".into();
        failure.retry_after_secs = Some(1);
        return Err(failure);
    }
    shared.core.store.ping().await?;
    Ok(Json(json!({ "status": "ready" })).into_response())
}
