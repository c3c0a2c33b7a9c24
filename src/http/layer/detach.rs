//! Runs each request in a task of its own, which goes on when the client hangs up.
//!
//! A transaction dropped half-way can go back to the pool still open (a defect of sqlx 0.9: a cancelled
//! `begin`), and a change half-way recorded is worse than one whose answer nobody reads. The task also
//! turns a panic into an answer. The tracker lets a graceful stop wait for those whose clients have gone.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::Shared;
use crate::http::error::Failure;
use crate::store::StoreError;

pub async fn detach(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let task = shared.tasks.spawn(next.run(request));
    match tokio::time::timeout(shared.edge.request_timeout, task).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Failure::fault("a request handler panicked").into_response(),
        Err(_) => Failure::from(StoreError::Busy).into_response(),
    }
}
