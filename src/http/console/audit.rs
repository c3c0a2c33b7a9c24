//! The audit trail, on a screen and as CSV for a spreadsheet.

use std::collections::{BTreeMap, HashMap, VecDeque};

use askama::Template;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::cells::{Answers, Place, Silent, THIS_CELL};
use super::context::{MerchantContext, UserContext};
use super::form::filled;
use super::listing::{carried, next_page};
use super::page::{Page, Screen, html};
use super::words::{self, Exactly};
use crate::domain::event::{AuditEvent, Outcome};
use crate::http::admin::audit::{AuditEventView, Latest};
use crate::http::admin::page::{PageQuery, Query, Wanted};
use crate::http::error::Failure;
use crate::store::audit::{Chained, Search};

/// The most events in one CSV file, which is a few megabytes. The admin API has the whole trail, page by
/// page.
const CSV_EVENTS_MAX: i64 = 10_000;

const CSV_COLUMNS: [&str; 12] = [
    "number",
    "time",
    "actor kind",
    "actor",
    "action",
    "object kind",
    "object",
    "outcome",
    "address",
    "request id",
    "detail",
    "hash",
];

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    page: Page,
    base: String,
    asked: Asked,
    is_filtered: bool,
    /// The trail of the whole platform, including events without a merchant.
    is_platform: bool,
    spans_cells: bool,
    silent: Vec<Silent>,
    rows: Vec<Row>,
    next: Option<String>,
}

struct Row {
    cell: Place,
    at: Exactly,
    who: String,
    what: String,
    action: String,
    object: String,
    object_name: Option<String>,
    /// The fields of the details that are ids of named objects, with the names.
    named: Vec<(String, String)>,
    /// The merchant's name, and the path of its own trail.
    merchant: Option<(String, String)>,
    is_refused: bool,
    client_ip: String,
    request_id: String,
    detail: String,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default, deserialize_with = "filled")]
    who: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    action: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    object: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    outcome: Option<String>,
    /// `platform` selects events without a merchant.
    #[serde(default, deserialize_with = "filled")]
    of: Option<String>,
    cursor: Option<String>,
}

impl Asked {
    fn search(&self) -> Search {
        Search {
            merchant: None,
            of_platform: self.of.as_deref() == Some("platform"),
            actor: self.who.clone(),
            // The user may type the action as stored or as the page shows it.
            action: self.action.as_deref().map(action_of),
            object_id: self.object.clone(),
            outcome: self.outcome.as_deref().and_then(|outcome| outcome.parse().ok()),
        }
    }

    fn carried(&self) -> String {
        carried(&[
            ("who", self.who.as_deref()),
            ("action", self.action.as_deref()),
            ("object", self.object.as_deref()),
            ("outcome", self.outcome.as_deref()),
            ("of", self.of.as_deref()),
        ])
    }
}

pub(super) async fn list(
    context: MerchantContext,
    Query(mut asked): Query<Asked>,
) -> Result<Response, Failure> {
    let wanted = context.wanted("audit events", asked.cursor.take())?;
    let core = context.context.core();
    let found = core
        .audit_events(
            &context.context.principal,
            context.id(),
            asked.search(),
            wanted.before,
            wanted.to_read(),
        )
        .await?;
    let principal = &context.context.principal;
    let mentioned = found.iter().flat_map(|chained| chained.event.ids());
    let names = core.names(principal, Some(context.id()), mentioned).await?;
    let listed =
        wanted.page(found, |chained| chained.seq, |chained| row(Place::here(), chained.event, None, &names));
    let carried = asked.carried();
    html(&AuditPage {
        page: context.page("Audit trail", Screen::AuditTrail),
        base: context.path("/audit"),
        is_platform: false,
        spans_cells: false,
        silent: Vec::new(),
        is_filtered: !carried.is_empty(),
        rows: listed.items,
        next: next_page(&carried, listed.next_cursor.as_deref()),
        asked,
    })
}

/// An event of this cell or of another.
struct OfCell {
    cell: Place,
    seq: i64,
    event: AuditEvent,
}

/// Before which number the page begins in each cell, by the name of the cell.
type Begin = BTreeMap<String, i64>;

/// The trail of the whole platform, for operators.
pub(super) async fn of_platform(
    context: UserContext,
    Query(mut asked): Query<Asked>,
) -> Result<Response, Failure> {
    let query = PageQuery { limit: None, cursor: asked.cursor.take() };
    let wanted = Wanted::<Begin>::new(context.core(), "console audit events".to_owned(), query)?;
    let (core, limit, search) = (context.core(), wanted.to_read(), asked.search());
    let mut begin = wanted.before.clone().unwrap_or_default();
    let (cells, before) = (context.other_cells(), begin.get(THIS_CELL).copied());
    let (found, of_this_cell) =
        core.latest_events(&context.principal, search.clone(), before, limit, &cells).await?;
    let ask = |cell: &str| path_of_latest(&search, begin.get(cell).copied(), limit);
    let Answers { answers, silent, .. } = context.ask_other_cells::<Latest>(ask).await;

    let here = found.into_iter().map(|chained| OfCell {
        cell: Place::here(),
        seq: chained.seq,
        event: chained.event,
    });
    let (mut lists, mut names) = (vec![here.collect()], HashMap::new());
    for (cell, latest) in answers {
        let of_cell =
            |one: AuditEventView| OfCell { cell: cell.clone(), seq: one.worked_out.seq, event: one.object };
        lists.push(latest.items.into_iter().map(of_cell).collect());
        names.extend(latest.names);
    }
    names.extend(of_this_cell);
    let newest = newest_of(lists, limit);
    // If there is a next page, the last of these events is on it.
    if let [shown @ .., _] = &newest[..] {
        begin.extend(shown.iter().map(|one| (one.cell.name.clone(), one.seq)));
    }
    let listed = wanted.page(
        newest,
        |_| begin.clone(),
        |one| {
            let merchant = one.event.merchant_id.map(|id| {
                let name = names.get(&id.uuid()).cloned().unwrap_or_else(|| id.to_string());
                (name, format!("{}/console/m/{id}/audit", one.cell.base))
            });
            row(one.cell, one.event, merchant, &names)
        },
    );
    let carried = asked.carried();
    html(&AuditPage {
        page: context.page("Audit trail of the platform", Screen::Trail),
        base: "/console/audit".to_owned(),
        is_platform: true,
        is_filtered: !carried.is_empty(),
        spans_cells: !cells.is_empty(),
        silent,
        rows: listed.items,
        next: next_page(&carried, listed.next_cursor.as_deref()),
        asked,
    })
}

/// The call with which another cell is asked for its events.
fn path_of_latest(search: &Search, before: Option<i64>, limit: i64) -> String {
    let before = before.map(|before| before.to_string());
    let filters = carried(&[
        ("before", before.as_deref()),
        ("actor", search.actor.as_deref()),
        ("action", search.action.as_deref()),
        ("object", search.object_id.as_deref()),
        ("outcome", search.outcome.map(<&str>::from)),
        ("of_platform", search.of_platform.then_some("true")),
    ]);
    format!("/admin/v1/audit-events/latest?{filters}limit={limit}")
}

/// The newest events of all lists. Each list stays in its order, that of the commits, in which times may go back.
fn newest_of(mut lists: Vec<VecDeque<OfCell>>, limit: i64) -> Vec<OfCell> {
    let next = || lists.iter_mut().max_by_key(|list| list.front().map(|one| one.event.at))?.pop_front();
    std::iter::from_fn(next).take(limit as usize).collect()
}

fn row(
    cell: Place,
    event: AuditEvent,
    merchant: Option<(String, String)>,
    names: &HashMap<Uuid, String>,
) -> Row {
    let detail = event.detail.to_string();
    let named = |id: Uuid| names.get(&id).cloned();
    Row {
        cell,
        object_name: event.object_id.as_deref().and_then(|id| named(id.parse().ok()?)),
        named: event.mentioned().filter_map(|(field, id)| Some((spaced(field), named(id)?))).collect(),
        at: Exactly(event.at),
        who: words::actor(&event.actor),
        what: title_of(&event.action),
        action: event.action,
        object: event.object_id.unwrap_or_default(),
        merchant,
        is_refused: event.outcome == Outcome::Refused,
        client_ip: event.client_ip.unwrap_or_default(),
        request_id: event.request_id.unwrap_or_default(),
        detail: if detail == "{}" { String::new() } else { detail },
    }
}

/// Actions whose names do not make a good title.
const TITLES: [(&str, &str); 13] = [
    ("admin_token.too_broad", "Admin token has too many permissions"),
    ("audit_events.read", "Audit trail viewed"),
    ("event.handed_in", "Event published"),
    ("leak.not_ours", "Leak report of an unknown secret"),
    ("leak.of_another_cell", "Leak report of a secret of another cell"),
    ("session.replay_detected", "Refresh token reused"),
    ("user.other_sessions_ended", "Other browsers signed out"),
    ("user.password_set", "Password changed"),
    ("user.recovery_codes_made", "Recovery codes created"),
    ("user.second_factor_set", "Second factor set up"),
    ("user.sign_in_link_made", "Sign-in link created"),
    ("webhook_delivery.failed_redelivered", "Failed webhooks resent"),
    ("webhook_delivery.redelivered", "Webhook resent"),
];

/// Converts `API key created`, as the page shows it, to `api_key.created`.
fn action_of(text: &str) -> String {
    if let Some((action, _)) = TITLES.iter().find(|(_, title)| title.eq_ignore_ascii_case(text.trim())) {
        return (*action).to_owned();
    }
    let lower = text.trim().to_lowercase();
    match lower.rsplit_once(' ') {
        Some((object, verb)) => format!("{}.{verb}", object.replace(' ', "_")),
        None => lower,
    }
}

/// Converts `api_key.created` to `API key created`.
pub(super) fn title_of(action: &str) -> String {
    if let Some((_, title)) = TITLES.iter().find(|(of, _)| *of == action) {
        return (*title).to_owned();
    }
    let words = spaced(action);
    let words = words.replacen("api key", "API key", 1);
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", letters.as_str())
}

fn spaced(name: &str) -> String {
    name.replace(['_', '.'], " ")
}

pub(super) async fn csv(context: MerchantContext) -> Result<Response, Failure> {
    let events = context
        .context
        .core()
        .audit_events(&context.context.principal, context.id(), Search::default(), None, CSV_EVENTS_MAX)
        .await?;
    let file = write_file(&events).map_err(|_| Failure::fault("cannot write the audit trail as CSV"))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"audit-trail.csv\"")),
    ];
    Ok((headers, file).into_response())
}

/// Writes CSV (RFC 4180) with every field quoted.
fn write_file(events: &[Chained]) -> Result<Vec<u8>, csv::Error> {
    let mut file = csv::WriterBuilder::new()
        .quote_style(csv::QuoteStyle::Always)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    file.write_record(CSV_COLUMNS)?;
    for chained in events {
        let event = &chained.event;
        let optional = |value: &Option<String>| value.clone().unwrap_or_default();
        let fields = [
            chained.seq.to_string(),
            event.at.to_rfc3339(),
            <&str>::from(event.actor.kind).to_owned(),
            event.actor.name.clone().or_else(|| event.actor.id.clone()).unwrap_or_default(),
            event.action.clone(),
            event.object_kind.clone(),
            optional(&event.object_id),
            <&str>::from(event.outcome).to_owned(),
            optional(&event.client_ip),
            optional(&event.request_id),
            chained.detail.clone(),
            hex::encode(&chained.hash),
        ];
        file.write_record(fields.map(guard_formula))?;
    }
    file.into_inner().map_err(|error| error.into_error().into())
}

/// Spreadsheets execute a field that begins like a formula (OWASP, "CSV injection"). An apostrophe in front
/// makes it text.
fn guard_formula(field: String) -> String {
    let is_formula =
        field.trim_start_matches(' ').starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}']);
    if is_formula { format!("'{field}") } else { field }
}
