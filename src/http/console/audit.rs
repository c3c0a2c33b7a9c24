//! The audit trail, on a screen and as CSV for a spreadsheet.

use askama::Template;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::context::MerchantContext;
use super::listing::Listing;
use super::page::{Page, Screen, html};
use super::words::Exactly;
use crate::domain::event::Outcome;
use crate::http::admin::page::Query;
use crate::http::error::Failure;
use crate::store::audit::Chained;

/// Events of one file: some megabytes. The whole trail is had page by page from the admin API.
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
    csv: String,
    rows: Vec<Row>,
    next_cursor: Option<String>,
}

struct Row {
    at: Exactly,
    who: String,
    what: String,
    object: String,
    is_refused: bool,
    client_ip: String,
    detail: String,
}

pub(super) async fn list(
    context: MerchantContext,
    Query(query): Query<Listing>,
) -> Result<Response, Failure> {
    let wanted = context.wanted("audit events", query.cursor)?;
    let core = context.context.core();
    let found = core
        .audit_events(&context.context.principal, context.id(), wanted.before, wanted.to_read())
        .await??;
    let listed = wanted.page(found, |chained| chained.seq, row);
    html(&AuditPage {
        page: context.page("Audit trail", Screen::AuditTrail),
        csv: context.path("/audit.csv"),
        rows: listed.items,
        next_cursor: listed.next_cursor,
    })
}

fn row(chained: Chained) -> Row {
    let event = chained.event;
    Row {
        at: Exactly(event.at),
        who: event.actor.name.unwrap_or_else(|| spaced(<&str>::from(event.actor.kind))),
        what: deed(&event.action),
        object: event.object_id.unwrap_or_default(),
        is_refused: event.outcome == Outcome::Refused,
        client_ip: event.client_ip.unwrap_or_default(),
        detail: if chained.detail == "{}" { String::new() } else { chained.detail },
    }
}

/// `api_key.created` as people say it: `API key created`.
fn deed(action: &str) -> String {
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
        .audit_events(&context.context.principal, context.id(), None, CSV_EVENTS_MAX)
        .await??;
    let file = write_file(&events).map_err(|_| Failure::fault("cannot write the audit trail as CSV"))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"audit-trail.csv\"")),
    ];
    Ok((headers, file).into_response())
}

/// RFC 4180, with every field quoted.
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

/// Spreadsheets run a field that begins like a formula (OWASP, "CSV injection"). An apostrophe before it
/// makes it text.
fn guard_formula(field: String) -> String {
    let is_formula =
        field.trim_start_matches(' ').starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}']);
    if is_formula { format!("'{field}") } else { field }
}
