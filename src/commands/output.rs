//! What commands print: objects as the admin API shows them, as JSON or as text for people.

use std::io::Write;

use anyhow::{Context, bail};
use chrono::{DateTime, FixedOffset};
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tollgate::domain::clock::Timestamp;

/// A time as an argument, in RFC 3339.
pub(super) type Time = DateTime<FixedOffset>;

pub(super) fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_micros(time.timestamp_micros())
}

/// How an object is printed.
#[derive(Args, Clone, Copy)]
pub(crate) struct Output {
    /// Print one line of JSON, as the admin API answers.
    #[arg(long)]
    pub(super) json: bool,
}

impl Output {
    /// Prints an answer of the admin API.
    pub(super) fn show(self, answer: &[u8]) -> anyhow::Result<()> {
        if self.json {
            return print(std::str::from_utf8(answer)?);
        }
        let Value::Object(fields) = serde_json::from_slice(answer)? else { bail!("not an object") };
        let mut text = String::new();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!("{name:<20} {value}\n"));
        }
        let secrets = ["key", "client_secret", "token", "webhook_secret"];
        if secrets.iter().any(|secret| fields.contains_key(*secret)) {
            text.push_str("\nThe secret is shown this once.\n");
        }
        print(&text)
    }
}

/// How a list is printed.
#[derive(Args, Clone)]
pub(crate) struct Listing {
    /// Print only the newest ones, up to this number.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    pub(super) limit: i64,
    /// Print {"items": [...]}, each as the admin API shows it.
    #[arg(long)]
    json: bool,
}

impl Listing {
    pub(super) fn print<T: Serialize>(
        &self,
        items: impl IntoIterator<Item = T>,
        columns: &[&str],
    ) -> anyhow::Result<()> {
        let items = items.into_iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        if self.json {
            return print(&json!({ "items": items }).to_string());
        }
        print(&table(&items, columns))
    }
}

fn table(items: &[Value], columns: &[&str]) -> String {
    let cell = |item: &Value, column: &&str| match &item[*column] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let header = columns.iter().map(|column| (*column).to_owned()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|column| cell(item, column)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

tokio::task_local! {
    /// The name of the cell that the command runs on, if it was given with `--cell`.
    pub(super) static CELL: String;
}

/// Prints to standard output, with exactly one newline at the end. With `--cell`, each line names the cell.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let text = text.trim_end();
    let text = CELL.try_with(|cell| of_cell(cell, text)).unwrap_or_else(|_| text.to_owned());
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to standard output")
}

/// A JSON object gets another field. Other lines begin with the cell's name.
fn of_cell(cell: &str, text: &str) -> String {
    let line = |line: &str| match serde_json::from_str::<Map<String, Value>>(line) {
        Ok(mut object) => {
            object.insert("cell".to_owned(), cell.into());
            Value::Object(object).to_string()
        }
        Err(_) => format!("{cell}: {line}"),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Tells the operator something beside the result.
pub(crate) fn note(text: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "tollgate: {text}");
}
