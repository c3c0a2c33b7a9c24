//! `tollgate cell`: moves a merchant to another cell, and tells the proxy.

mod map;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use tollgate::config::{DatabaseUrl, Settings};
use tollgate::domain::cell::CellId;
use tollgate::flows::move_merchant::{Move, Step};
use tollgate::store::{Make, Options, Store};
use uuid::Uuid;

use super::CommandLine;
use super::output::{note, print};
use map::{Map, Proxy};

#[derive(Clone, Subcommand)]
pub(crate) enum CellJob {
    /// Move a merchant to another cell, while it works.
    ///
    /// The settings are those of the cell that the merchant leaves. Calls of the merchant get 503 while its last changes
    /// are copied, for at most two seconds, and then until the proxy has read the map. Give the same command again to go
    /// on with a move that was interrupted.
    Move(MoveArguments),
}

#[derive(Args, Clone)]
pub(crate) struct MoveArguments {
    /// Id or name of the merchant.
    merchant: String,
    /// Database of the cell that the merchant goes to: a URL, or a file with the URL in it.
    #[arg(long, value_name = "URL")]
    to: String,
    /// URL at which the other database reaches this one, or a file with it, if it is not that of the settings.
    #[arg(long, value_name = "URL")]
    reached_at: Option<String>,
    /// The proxy's map of what has moved.
    #[arg(long, value_name = "FILE", requires = "backend")]
    map: Option<PathBuf>,
    /// The proxy's name of the cell that the merchant goes to.
    #[arg(long, value_name = "NAME", requires = "map")]
    backend: Option<String>,
    /// Which proxy reads the map.
    #[arg(long, value_name = "PROXY", default_value = "haproxy")]
    proxy: Proxy,
    /// Command that makes the proxy read the map again.
    #[arg(long, value_name = "COMMAND", requires = "map")]
    reload: Option<String>,
    /// Give up the move. The merchant stays where it was, and the copy is deleted.
    #[arg(long, conflicts_with = "map")]
    undo: bool,
}

pub(super) async fn run(settings: &Settings, line: &CommandLine, job: CellJob) -> anyhow::Result<()> {
    let CellJob::Move(MoveArguments { merchant, to, reached_at, map, backend, proxy, reload, undo }) = job;
    let to = url_of(&to).context("--to")?;
    let reached_at = reached_at.map(|text| url_of(&text)).transpose().context("--reached-at")?;
    let reached_at = reached_at.as_ref().map_or(settings.database.url.expose(), DatabaseUrl::expose);
    // Find out before the merchant is off that the map exists.
    let mut map = map.zip(backend).map(|(path, backend)| Map::new(path, proxy, &backend)).transpose()?;
    let mut moving =
        Move::prepare(settings.database.url.expose(), to.expose(), &merchant, reached_at.to_owned()).await?;
    if let Some(map) = &map {
        map.check(&mut moving).await?;
    }
    let (from, there) = moving.cells();
    let tell = |step: Step| note(&step.to_string());
    if undo {
        moving.undo(tell).await?;
        return print(&format!("merchant {} stays in cell {}", moving.merchant(), from.number()));
    }
    let is_served = moving.copy(tell).await?;
    let mut listed_at = None;
    if let Some(map) = map.as_mut().filter(|_| is_served) {
        listed_at = Some(line.core.now());
        let carried = moving.carried(None).await?;
        note("writing what is known beside the map");
        map.write_ahead(&mut moving, carried).await?;
    }
    moving.hand_over(tell).await?;
    if let Some(map) = &mut map {
        note("writing the map");
        let late = moving.carried(listed_at).await?;
        map.replace(&mut moving, late).await?;
        make_read(reload.as_deref())?;
    }
    moving.clear(tell).await?;
    if let Some(map) = &mut map {
        // Finds sessions that the old cell opened after most of the map was written, and that seemed older because a
        // replica's clock is far behind. What the new cell has made since needs no line.
        let mut carried = moving.carried(None).await?;
        carried.retain(|key| !shows(there, key));
        if !map.has_all(&carried) {
            note("writing the rest of the map");
            map.replace(&mut moving, carried).await?;
            make_read(reload.as_deref())?;
        }
    }
    let store = open_there(settings, &to).await?;
    let recorded = line.core.record_move(&line.principal, &moving, &store).await;
    store.close().await;
    recorded?;
    print(&format!("merchant {} is in cell {} now", moving.merchant(), there.number()))
}

/// Whether the proxy sends calls with this id to the cell without a line.
fn shows(cell: CellId, key: &str) -> bool {
    Uuid::try_parse(key).ok().and_then(CellId::of_id) == Some(cell)
}

/// Makes the proxy read the map again.
fn make_read(reload: Option<&str>) -> anyhow::Result<()> {
    let Some(reload) = reload else { return Ok(()) };
    let status = Command::new("sh").arg("-c").arg(reload).status().context("--reload")?;
    ensure!(
        status.success(),
        "the merchant has moved and the map is written, but --reload ended with {status}"
    );
    Ok(())
}

/// Opens the store of the other cell, which must be up to date.
async fn open_there(settings: &Settings, url: &DatabaseUrl) -> anyhow::Result<Store> {
    let options = Options {
        url: url.expose(),
        make: Make::Nothing,
        connections_max: 2,
        cache_bytes_max: 0,
        timeout: settings.database.timeout,
        read_again: None,
    };
    Ok(Store::open(options).await?)
}

/// A URL, or the contents of a file that has one.
fn url_of(text: &str) -> anyhow::Result<DatabaseUrl> {
    Ok(if text.contains("://") { text.parse() } else { DatabaseUrl::read_from(text.as_ref()) }?)
}
