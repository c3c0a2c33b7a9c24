//! `/healthz` tells a service manager whether to restart us. `/readyz` tells a load balancer whether to send
//! traffic.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::error::Failure;

#[derive(Serialize, ToSchema)]
pub struct Health {
    status: &'static str,
}

/// Answers 200 while the process is up. Does not use the store.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Health)))]
pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Answers 200 if the server can serve calls, else 503.
///
/// It can if the store answers, the schema is there, every background task runs and the server is not
/// stopping.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200, body = Health)))]
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Result<Json<Health>, Failure> {
    if shared.is_draining.load(Ordering::Relaxed) {
        return Err(not_ready("the server is stopping".into()));
    }
    if let Some(down) = shared.core.store.tasks().states().iter().find(|task| !task.is_up) {
        return Err(not_ready(format!("the background task {} is being restarted", down.name).into()));
    }
    shared.core.store.ping().await?;
    Ok(Json(Health { status: "ready" }))
}

fn not_ready(description: Cow<'static, str>) -> Failure {
    let mut failure = Failure::of_status(StatusCode::SERVICE_UNAVAILABLE);
    failure.description = description;
    failure.retry_after_secs = Some(1);
    failure
}
