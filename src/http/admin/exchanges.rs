//! API details: every call of the integrators' API.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::page::{Page, PageQuery, Path, Query, Wanted};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::error::Failure;
use crate::store::exchanges::{Exchange, Filter};

/// Which exchanges to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExchangeQuery {
    request_id: Option<String>,
    /// The HTTP status of the answer.
    status: Option<u16>,
    api_key_id: Option<ApiKeyId>,
    /// Only calls that were refused for this reason, such as `address_not_allowed`. `other` means without a reason,
    /// `any` means every refused call.
    reason: Option<String>,
    /// The address of the caller.
    client_ip: Option<String>,
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
    params(("id" = MerchantId, Path), ExchangeQuery), responses((status = 200, body = Page<Exchange>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Query(query): Query<ExchangeQuery>,
) -> Result<Json<Page<Exchange>>, Failure> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let wanted = Wanted::new(&shared.core, format!("exchanges of {id}"), page)?;
    let filter = Filter {
        request_id: query.request_id,
        status: query.status,
        api_key_id: query.api_key_id,
        denied: query.reason,
        client_ip: query.client_ip,
        from: query.from,
        to: query.to,
    };
    let found = shared.core.exchanges(&principal, id, &filter, wanted.before, wanted.to_read()).await?;
    Ok(Json(wanted.page(found, |exchange| exchange.id, |exchange| exchange)))
}
