//! Answers requests: through the router, or by a handler directly.
//!
//! Merchants make four calls all day. For these, matching in the router, its boxes and its extensions would take a
//! twentieth of the call, so they go straight to their handlers. Everything else is the same: they are in the route
//! table too, which has their documents and answers other methods on their paths.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::Method;
use axum::response::Response;
use futures_util::future::{BoxFuture, Either};
use tower::Service;

use super::{Shared, api, every_call};

struct Direct {
    method: Method,
    path: &'static str,
    call: fn(Request, Arc<Shared>) -> BoxFuture<'static, Response>,
}

static DIRECT: [Direct; 4] = [
    Direct {
        method: Method::GET,
        path: "/api/verify",
        call: |request, shared| api::verify::verify.call(request, shared),
    },
    Direct {
        method: Method::POST,
        path: "/api/introspect",
        call: |request, shared| api::introspect::introspect.call(request, shared),
    },
    Direct {
        method: Method::POST,
        path: "/api/authorize",
        call: |request, shared| api::authorize::authorize.call(request, shared),
    },
    Direct {
        method: Method::POST,
        path: "/api/refresh_token",
        call: |request, shared| api::authorize::refresh_token.call(request, shared),
    },
];

#[derive(Clone)]
pub struct Front {
    router: Router,
    /// `None` if every request goes through the router.
    shared: Option<Arc<Shared>>,
}

impl From<Router> for Front {
    fn from(router: Router) -> Self {
        Self { router, shared: None }
    }
}

impl Front {
    pub(super) fn new(router: Router, shared: Arc<Shared>) -> Self {
        Self { router, shared: Some(shared) }
    }

    pub fn call(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + 'static + use<> {
        let is_of =
            |direct: &&Direct| direct.path == request.uri().path() && direct.method == request.method();
        match (&self.shared, DIRECT.iter().find(is_of)) {
            (Some(shared), Some(Direct { path, call, .. })) => {
                let mut handler = |request| call(request, Arc::clone(shared));
                Either::Left(every_call(Arc::clone(shared), Some((*path).into()), request, &mut handler))
            }
            // A router is always ready.
            _ => Either::Right(self.router.clone().call(request)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_direct_calls_are_those_of_the_document() {
        let document: Value =
            serde_json::from_str(include_str!("../../tests/openapi.json")).expect("the document is JSON");
        for Direct { method, path, .. } in &DIRECT {
            let operation = &document["paths"][path][method.as_str().to_lowercase()];
            assert!(operation.is_object(), "{method} {path}");
        }
    }
}
