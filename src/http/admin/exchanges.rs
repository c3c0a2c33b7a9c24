//! API details: every call of the integrators' API.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::page::{Page, PageQuery, Path, Query, Wanted};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, ExchangeId, MerchantId};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;
use crate::store::exchanges::{Exchange, Filter};

#[derive(Serialize, ToSchema)]
pub struct ExchangeView {
    id: ExchangeId,
    request_id: String,
    at: Timestamp,
    method: String,
    path: String,
    status: u16,
    /// The error that the caller was told.
    error: Option<String>,
    /// The exact reason, such as `address_not_allowed`. `address_observed` is set on a call that was allowed.
    reason: Option<String>,
    client_ip: String,
    /// The trusted proxies that the call came through, nearest last.
    hops: Vec<String>,
    api_key_id: Option<ApiKeyId>,
    client_id: Option<String>,
    /// Time until the answer, in microseconds.
    latency_us: i64,
}

impl From<Exchange> for ExchangeView {
    fn from(exchange: Exchange) -> Self {
        Self {
            id: exchange.id,
            request_id: exchange.request_id,
            at: exchange.at,
            method: exchange.method,
            path: exchange.path,
            status: exchange.status,
            error: exchange.error,
            reason: exchange.reason,
            client_ip: exchange.client_ip,
            hops: exchange.hops,
            api_key_id: exchange.api_key_id,
            client_id: exchange.client_id,
            latency_us: exchange.latency_us,
        }
    }
}

/// Which exchanges to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExchangeQuery {
    request_id: Option<String>,
    /// The HTTP status of the answer.
    status: Option<u16>,
    api_key_id: Option<ApiKeyId>,
    /// At or after this time.
    from: Option<Timestamp>,
    /// Before this time.
    to: Option<Timestamp>,
    /// Objects per page, 1 to 200; the default is 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// List the calls of a merchant's integrations, newest first.
#[utoipa::path(get, path = "/admin/v1/merchants/{id}/exchanges", tag = "exchanges",
    params(("id" = MerchantId, Path), ExchangeQuery), responses((status = 200, body = Page<ExchangeView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Query(query): Query<ExchangeQuery>,
) -> Result<Json<Page<ExchangeView>>, Failure> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let wanted = Wanted::new(&shared.core, format!("exchanges of {id}"), page)?;
    let filter = Filter {
        request_id: query.request_id,
        status: query.status,
        api_key_id: query.api_key_id,
        from: query.from,
        to: query.to,
        ..Filter::default()
    };
    let found = shared.core.exchanges(&principal, id, &filter, wanted.before, wanted.to_read()).await?;
    Ok(Json(wanted.page(found, |exchange| exchange.id, ExchangeView::from)))
}
