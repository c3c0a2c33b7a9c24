//! Lets a request continue when its client hangs up or its time is over.
//!
//! If a request were dropped in the middle, a transaction could go back to the pool still open (a bug in sqlx
//! 0.9: a cancelled `begin`), or a change could be recorded only in part. So a request that is dropped before
//! its answer continues as a task. Most requests are not dropped and need no task. The tracker lets a
//! graceful stop wait for all of them. A panic becomes an answer.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::flows::error::Fault;
use crate::http::Shared;
use crate::http::error::Failure;

type Answer = Result<Response, Box<dyn Any + Send>>;

/// Runs the rest of the request to its end, even if the client goes away.
pub async fn detach(shared: &Shared, rest: impl Future<Output = Response> + Send + 'static) -> Response {
    let under_way = shared.tasks.token();
    let rest = AssertUnwindSafe(async move {
        let answer = rest.await;
        drop(under_way);
        answer
    });
    let call = Detachable(Some(rest.catch_unwind().boxed()));
    match tokio::time::timeout(shared.edge.request_timeout, call).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Failure::fault("a request handler panicked").into_response(),
        Err(_) => Failure::from(Fault::Busy).into_response(),
    }
}

/// An open request. If it is dropped before its answer, it continues as a task.
struct Detachable(Option<BoxFuture<'static, Answer>>);

impl Future for Detachable {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let Some(rest) = &mut self.0 else { return Poll::Pending };
        let answer = std::task::ready!(rest.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(answer)
    }
}

impl Drop for Detachable {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and its database connections are closed anyway.
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(rest);
        }
    }
}
