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
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::flows::error::Fault;
use crate::http::Shared;
use crate::http::error::Failure;

type Answer = Result<Response, Box<dyn Any + Send>>;

/// Runs the rest of the request to its end, even if the client goes away. `finish` completes the answer and writes the
/// log line. It is called at most once, and is told whether the client has gone.
pub async fn detach<F>(
    shared: &Shared,
    rest: impl Future<Output = Response> + Send + 'static,
    finish: F,
) -> Response
where
    F: FnOnce(Response, bool) -> Response + Send + Unpin + 'static,
{
    let rest = AssertUnwindSafe(rest).catch_unwind().boxed();
    let mut call =
        Detachable { rest: Some(rest), finish: Some(finish), under_way: Some(shared.tasks.token()) };
    let response = match tokio::time::timeout(shared.edge.request_timeout, &mut call).await {
        Ok(answer) => unless_panicked(answer),
        Err(_) => Failure::from(Fault::Busy).into_response(),
    };
    match call.finish.take() {
        Some(finish) => finish(response, false),
        None => response,
    }
}

fn unless_panicked(answer: Answer) -> Response {
    answer.unwrap_or_else(|_| Failure::fault("a request handler panicked").into_response())
}

/// An open request. If it is dropped before its answer, it continues as a task.
struct Detachable<F: FnOnce(Response, bool) -> Response + Send + 'static> {
    rest: Option<BoxFuture<'static, Answer>>,
    /// `None` once the client has its answer, which can be that the time is over.
    finish: Option<F>,
    /// A graceful stop waits for this.
    under_way: Option<TaskTrackerToken>,
}

impl<F: FnOnce(Response, bool) -> Response + Send + Unpin + 'static> Future for Detachable<F> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let Some(rest) = &mut self.rest else { return Poll::Pending };
        let answer = std::task::ready!(rest.as_mut().poll(context));
        self.rest = None;
        Poll::Ready(answer)
    }
}

impl<F: FnOnce(Response, bool) -> Response + Send + 'static> Drop for Detachable<F> {
    fn drop(&mut self) {
        let (finish, under_way) = (self.finish.take(), self.under_way.take());
        // Without a runtime the process is ending, and its database connections are closed anyway.
        if let (Some(rest), Ok(runtime)) = (self.rest.take(), Handle::try_current()) {
            runtime.spawn(async move {
                let answer = rest.await;
                if let Some(finish) = finish {
                    drop(finish(unless_panicked(answer), true));
                }
                drop(under_way);
            });
        }
    }
}
