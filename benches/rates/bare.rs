//! The least that a call costs with axum: a handler that reads the form and answers, in a process of its own.
//!
//! What a call of the real program costs beyond it is its own work: it is what `x bare` counts.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::ListenerExt;
use serde::Deserialize;
use tokio::runtime::Builder;

/// As many bytes as an answer to a call of the hot path has, about.
const ANSWER_BYTES: usize = 250;

#[derive(Deserialize)]
struct Form {
    client_id: String,
    client_secret: String,
}

/// The process, killed when this is dropped.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Bare {
    pub(crate) fn start() -> Self {
        let address = crate::server::free_address();
        let child = Command::new(std::env::current_exe().expect("this program has a file"))
            .arg(format!("--serve-bare={address}"))
            .stdin(Stdio::null())
            .spawn()
            .expect("this program runs");
        crate::server::wait_for(address);
        Self { address, child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // There is nobody to tell of a failure.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the process does.
pub(crate) fn serve(address: SocketAddr) {
    let answer = Bytes::from(format!("{{\"answer\":\"{}\"}}", "a".repeat(ANSWER_BYTES - 13)));
    let router = Router::new().route("/api/authorize", post(async move |body| handler(body, answer)));
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime needs a few threads");
    runtime.block_on(async {
        let listener = TcpListener::bind(address).expect("a port that was just free");
        listener.set_nonblocking(true).expect("a socket that is open");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket that is open");
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket that is open"));
        axum::serve(listener, router).await.expect("it serves until it is killed");
    });
}

fn handler(body: Bytes, answer: Bytes) -> impl IntoResponse {
    match serde_urlencoded::from_bytes::<Form>(&body) {
        Ok(Form { client_id, client_secret }) if !client_id.is_empty() && !client_secret.is_empty() => {
            Ok(([(header::CONTENT_TYPE, "application/json")], answer))
        }
        _ => Err(StatusCode::BAD_REQUEST),
    }
}
