//! The audit trail.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::body::json_bytes;
use super::page::{Page, PageQuery, Path, Query, Wanted};
use super::shown::Shown;
use crate::domain::event::{AuditEvent, Outcome};
use crate::domain::ids::MerchantId;
use crate::flows::principal::Principal;
use crate::flows::trail::Reading;
use crate::http::Shared;
use crate::http::error::Failure;
use crate::store::audit::{Chained, Filter, Search};

// An event's place in the hash chain.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEventView)]
pub struct Link {
    /// The event's number in the hash chain.
    pub seq: i64,
    /// SHA-256 over this event and the previous hash, in hex.
    hash: String,
}

pub type AuditEventView = Shown<AuditEvent, Link>;

impl From<Chained> for AuditEventView {
    fn from(chained: Chained) -> Self {
        let link = Link { seq: chained.seq, hash: hex::encode(chained.hash) };
        Self { object: chained.event, worked_out: link }
    }
}

/// List a merchant's audit events, newest first. Reading them is recorded too.
#[utoipa::path(get, path = "/admin/v1/merchants/{id}/audit-events", tag = "audit",
    params(("id" = MerchantId, Path), PageQuery), responses((status = 200, body = Page<AuditEventView>)))]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<MerchantId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<AuditEventView>>, Failure> {
    let wanted = Wanted::new(&shared.core, format!("audit-events of {id}"), page)?;
    let found =
        shared.core.audit_events(&principal, id, Search::default(), wanted.before, wanted.to_read()).await?;
    Ok(Json(wanted.page(found, |chained| chained.seq, AuditEventView::from)))
}

/// Which events to list, and how long to wait for one.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TrailQuery {
    /// A `seq`: list only later events. Without it, the list starts at the beginning.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// The id of a token or user, or a client id.
    actor: Option<String>,
    /// An action such as `api_key.revoked`.
    action: Option<String>,
    /// The id of an object.
    object: Option<String>,
    outcome: Option<Outcome>,
    /// Seconds to wait if there is no such event yet; higher values count as 25.
    wait: Option<u32>,
    /// Objects per page, 1 to 200; the default is 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

const WAIT_MAX: Duration = Duration::from_secs(25);

const NDJSON: &str = "application/x-ndjson";

/// List or follow the audit events of the whole platform, oldest first.
///
/// For operators and for service tokens with `audit.read`. A service token of one merchant sees only that
/// merchant's events. To follow the trail, call again with the last `seq` in `after`. With
/// `Accept: application/x-ndjson` the answer has one event per line. Reading is recorded once an hour.
#[utoipa::path(get, path = "/admin/v1/audit-events", tag = "audit", params(TrailQuery),
    responses((status = 200, content((Page<AuditEventView> = "application/json"),
        (AuditEventView = "application/x-ndjson")))))]
pub async fn trail(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<TrailQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let after = query.after.unwrap_or(0);
    if after < 0 {
        return Err(Failure::invalid_request("after: must be 0 or more"));
    }
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let wanted = Wanted::new(&shared.core, "audit-events".to_owned(), page)?;
    // Answer well before the request times out.
    let wait_max = WAIT_MAX.min(shared.edge.request_timeout / 2);
    let reading = Reading {
        filter: Filter {
            merchant: None,
            actor_id: query.actor,
            action: query.action,
            object_id: query.object,
            outcome: query.outcome,
        },
        after: wanted.before.unwrap_or(after),
        limit: wanted.to_read(),
        wait: Duration::from_secs(query.wait.unwrap_or(0).into()).min(wait_max),
    };
    let found = shared.core.trail(&principal, reading, || shared.is_draining.load(Ordering::Relaxed)).await?;
    let page = wanted.page(found, |chained| chained.seq, AuditEventView::from);
    if headers.get(header::ACCEPT).is_none_or(|accepted| accepted != NDJSON) {
        return Ok(Json(page).into_response());
    }
    let lines = page.items.iter().flat_map(|event| [json_bytes(event), b"\n".to_vec()].concat());
    Ok(([(header::CONTENT_TYPE, NDJSON)], lines.collect::<Vec<u8>>()).into_response())
}

/// Which of the latest events to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LatestQuery {
    /// A `seq`: list only earlier events.
    before: Option<i64>,
    /// The id or the name of a token or user, or a client id.
    actor: Option<String>,
    /// An action such as `api_key.revoked`.
    action: Option<String>,
    /// The id of an object.
    object: Option<String>,
    outcome: Option<Outcome>,
    /// Whether to list only events without a merchant.
    #[serde(default)]
    #[param(required = false)]
    of_platform: bool,
    /// Objects per page, 1 to 200; the default is 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

// A page of events, newest first.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = LatestAuditEvents)]
pub struct Latest {
    pub items: Vec<AuditEventView>,
    /// The names of merchants, keys, users and admin tokens that the events mention, by their ids.
    pub names: HashMap<Uuid, String>,
    /// The cursor of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

/// List the audit events of the whole platform, newest first, with the names of what they mention.
///
/// For operators and for service tokens with `audit.read`. A service token of one merchant sees only that
/// merchant's events. Reading is recorded once an hour.
#[utoipa::path(get, path = "/admin/v1/audit-events/latest", tag = "audit", params(LatestQuery),
    responses((status = 200, body = Latest)))]
pub async fn latest(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<LatestQuery>,
) -> Result<Json<Latest>, Failure> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let wanted = Wanted::new(&shared.core, "latest audit-events".to_owned(), page)?;
    let search = Search {
        merchant: None,
        of_platform: query.of_platform,
        actor: query.actor,
        action: query.action,
        object_id: query.object,
        outcome: query.outcome,
    };
    let before = wanted.before.or(query.before);
    let (found, names) = shared.core.latest_events(&principal, search, before, wanted.to_read(), &[]).await?;
    let Page { items, next_cursor } = wanted.page(found, |chained| chained.seq, AuditEventView::from);
    Ok(Json(Latest { items, names, next_cursor }))
}
