//! `--cell NAME=URL`: a command on cells other than that of the settings. A command that only reads may have several,
//! and each line that it prints says which cell answered.

use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use tollgate::app::{Create, open_store};
use tollgate::config::{DatabaseUrl, Settings};
use tollgate::domain::cell::Cell;
use tollgate::flows::error::{Error, Fault, Refused};
use tollgate::store::{StoreError, cell, url};

use super::find::Absent;
use super::output::{CELL, note};
use super::{Job, audit};

/// A cell that a command runs on.
#[derive(Clone)]
pub(crate) struct NamedCell {
    name: String,
    url: DatabaseUrl,
}

/// `NAME=URL`, or `NAME=FILE` with a file that holds the URL. No error repeats the URL, which may have a password.
impl FromStr for NamedCell {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, place) = text.split_once('=').context("not of the form NAME=URL or NAME=FILE")?;
        ensure!(
            !name.is_empty() && name.chars().all(char::is_alphanumeric),
            "a name has only letters and digits"
        );
        let url = if place.contains("://") { place.parse() } else { DatabaseUrl::read_from(place.as_ref()) };
        Ok(Self { name: name.to_owned(), url: url? })
    }
}

/// Runs a command on each of the cells.
pub(crate) async fn run(mut settings: Settings, cells: Vec<NamedCell>, job: Job) -> anyhow::Result<()> {
    if cells.len() > 1 {
        ensure!(job.creates() == Create::Nothing, "a command that changes something takes one --cell");
        if let Job::Audit(audit::Job::Tail { follow: true, .. }) = job {
            bail!("--follow takes one --cell");
        }
    }
    settings.database.url_file = None;
    let (number, mut answered, mut failed, mut absent) = (cells.len(), 0, 0, None);
    for NamedCell { name, url } in cells {
        note(&format!("cell {name}: the store is {}", url::describe(url.expose())?));
        settings.database.url = url;
        match CELL.scope(name.clone(), run_on(&mut settings, job.clone())).await {
            Ok(()) => answered += 1,
            Err(error) if number == 1 => return Err(error),
            Err(error) if is_absent(&error) => absent = Some(error),
            Err(error) => {
                note(&format!("cell {name}: {error:#}"));
                failed += 1;
            }
        }
    }
    ensure!(failed == 0, "{failed} of {number} cells did not answer");
    match absent {
        Some(error) if answered == 0 => Err(error),
        _ => Ok(()),
    }
}

async fn run_on(settings: &mut Settings, job: Job) -> anyhow::Result<()> {
    let store = open_store(settings, Create::Nothing).await?;
    let found = cell::read(&mut store.read().await?).await;
    store.close().await;
    let found = found?;
    ensure!(
        found.is_some() || job.creates() == Create::Nothing,
        "the database belongs to no cell yet: start a replica of this cell first"
    );
    settings.cell = found.map(|id| Cell { id, is_default: false });
    super::run(settings, job).await
}

/// Whether the cell answered that it does not have what the command names, or has it no more.
fn is_absent(error: &anyhow::Error) -> bool {
    error.is::<Absent>()
        || matches!(
            error.downcast_ref(),
            Some(Error::Refused(Refused::NotFound) | Error::Fault(Fault::Store(StoreError::Elsewhere)))
        )
}
