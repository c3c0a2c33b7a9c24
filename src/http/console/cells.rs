//! Asks the other cells for their part of a list that spans cells.
//!
//! They are asked through their admin API, all at the same time, with a token that can only read. The page says which
//! cells did not answer. Redirects are not followed, so a token goes only to the URL of the settings.

use std::error::Error;
use std::iter::successors;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::client_tls::{client_tls, handshake_fault};
use crate::config::{self, CellTokens, CellUrl};
use crate::domain::delivery::SendError;
use crate::domain::secret::PlainSecret;
use crate::http::layer::context::REQUEST_ID;
use crate::http::tls::{TlsError, certificates_in};

/// How long a page waits for the slowest cell.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Several times as much as a page of audit events with long details.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why a cell has no part in a list. The text follows the name of the cell.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("has no token that this server can read")]
    NoToken,
    #[error("{}", unreachable(.0))]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("did not answer within {} seconds", TIMEOUT.as_secs())]
    TimedOut,
    #[error("does not accept this server's token")]
    Refused,
    #[error("answered {0}")]
    Failed(StatusCode),
    #[error("answered something that this server cannot read")]
    Unreadable(#[source] Box<dyn Error + Send + Sync>),
}

/// Why there is no connection to a cell.
fn unreachable(error: &(dyn Error + 'static)) -> &'static str {
    match handshake_fault(error) {
        Some(SendError::TlsUnknownAuthority) => {
            "has a certificate whose authority is neither one that browsers trust nor in console.cell_ca_file"
        }
        Some(SendError::TlsNameMismatch) => "has a certificate for another name",
        Some(SendError::TlsCertificateExpired) => "has a certificate that has expired, or is not valid yet",
        Some(SendError::TlsProtocol) => "does not support TLS 1.2 or 1.3 on this port",
        _ => "cannot be reached",
    }
}

/// Where a row of a list comes from.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) name: String,
    /// Before the path of a page of its console. Empty for this cell.
    pub(super) base: String,
}

/// As the name of a place. No other cell has this name, because their names have no spaces.
pub(super) const THIS_CELL: &str = "This cell";

impl Place {
    pub(super) fn here() -> Self {
        Self { name: THIS_CELL.to_owned(), base: String::new() }
    }
}

/// What the other cells answered, if there are any.
pub(super) struct Answers<T> {
    pub(super) answers: Vec<(Place, T)>,
    /// How long each of them took, for people: `us in 12 ms`.
    pub(super) times: Vec<String>,
    pub(super) silent: Vec<Silent>,
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self { answers: Vec::new(), times: Vec::new(), silent: Vec::new() }
    }
}

/// A cell that did not answer.
pub(super) struct Silent {
    pub(super) cell: Place,
    pub(super) why: String,
}

pub struct OtherCells {
    cells: Vec<CellUrl>,
    tokens: CellTokens,
    tokens_file: Option<PathBuf>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl OtherCells {
    /// `None` if the settings name no other cell.
    pub fn new(settings: &config::Console) -> Result<Option<Self>, TlsError> {
        if settings.cells.is_empty() {
            return Ok(None);
        }
        let authorities = settings.cell_ca_file.as_deref().map(certificates_in).transpose()?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls(authorities.into_iter().flatten()))
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Some(Self {
            cells: settings.cells.clone(),
            tokens: settings.cell_tokens.clone(),
            tokens_file: settings.cell_tokens_file.clone(),
            // Pages are too rare to keep connections for them.
            client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector),
        }))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.cells.iter().map(|cell| cell.name.as_str())
    }

    /// Calls the path of each cell. The request id is that of the page, so that the logs of all cells show it.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        request_id: &str,
        path: impl Fn(&str) -> String,
    ) -> Answers<T> {
        let (tokens, begun) = (self.tokens(), Instant::now());
        let ask = async |cell: &CellUrl| {
            let token = tokens.as_ref().and_then(|tokens| tokens.of(&cell.name)).ok_or(NoAnswer::NoToken)?;
            let url = format!("{}{}", cell.url, path(&cell.name));
            let answer = timeout(TIMEOUT, self.call(&url, token, request_id)).await;
            answer.unwrap_or(Err(NoAnswer::TimedOut)).map(|answer| (answer, begun.elapsed().as_millis()))
        };
        let mut all = Answers::default();
        for (cell, answer) in self.cells.iter().zip(join_all(self.cells.iter().map(ask)).await) {
            let place = Place { name: cell.name.clone(), base: cell.url.clone() };
            match answer {
                Ok((answer, millis)) => {
                    all.times.push(format!("{} in {millis} ms", cell.name));
                    all.answers.push((place, answer));
                }
                Err(error) => {
                    let causes = successors(Some(&error as &dyn Error), |error| (*error).source());
                    let chain: Vec<String> = causes.map(ToString::to_string).collect();
                    tracing::warn!(
                        cell = cell.name,
                        error = chain.join(": "),
                        "another cell does not answer"
                    );
                    all.silent.push(Silent { cell: place, why: error.to_string() });
                }
            }
        }
        all
    }

    /// The tokens as they are now. `None` if their file cannot be read.
    fn tokens(&self) -> Option<CellTokens> {
        let Some(path) = &self.tokens_file else { return Some(self.tokens.clone()) };
        let read = CellTokens::read_from(path);
        read.inspect_err(|error| tracing::error!(%error, "console.cell_tokens_file")).ok()
    }

    async fn call<T: DeserializeOwned>(
        &self,
        url: &str,
        token: &PlainSecret,
        request_id: &str,
    ) -> Result<T, NoAnswer> {
        let unreadable = |error: Box<dyn Error + Send + Sync>| NoAnswer::Unreadable(error);
        let mut bearer =
            HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| NoAnswer::NoToken)?;
        bearer.set_sensitive(true);
        let request = Request::get(url)
            .header(header::AUTHORIZATION, bearer)
            .header(REQUEST_ID, request_id)
            .body(Empty::new())
            .map_err(|error| unreadable(error.into()))?;
        let response = self.client.request(request).await.map_err(NoAnswer::Unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(NoAnswer::Refused),
            status => return Err(NoAnswer::Failed(status)),
        }
        let body =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(unreadable)?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| unreadable(error.into()))
    }
}
