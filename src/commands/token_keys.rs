//! `tollgate keys`: lists the token keys and what still needs each of them, and rotates them.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tollgate::app::{BuildError, Create, key_file};
use tollgate::config::{Settings, TokenKeys};
use tollgate::domain::keyring::{KeyState, ServerKey, name_of};
use tollgate::flows::Core;
use tollgate::flows::principal::Principal;
use tollgate::flows::token_keys::KeyReport;
use tollgate::store::Engine;
use zeroize::Zeroizing;

use super::output::{Output, print};

#[derive(Args, Clone)]
pub(crate) struct Keys {
    #[command(subcommand)]
    job: Option<Job>,
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Subcommand)]
enum Job {
    /// List the token keys: which one signs, what still needs each key, and whether it can be removed. The
    /// default.
    List,
    /// Show one token key.
    Show {
        /// 16 hexadecimal digits.
        id: String,
    },
    /// Add a new key to the key file. It signs once every replica has it. No restart is needed.
    Rotate,
    /// Seal webhook secrets and second factors again with the key that signs.
    Reseal,
}

impl Keys {
    pub(super) const fn creates(&self) -> Create {
        match self.job {
            None | Some(Job::List | Job::Show { .. }) => Create::Nothing,
            Some(Job::Rotate | Job::Reseal) => Create::Beside,
        }
    }
}

fn must_be_here(settings: &Settings, core: &Core) -> anyhow::Result<()> {
    match key_file(settings) {
        Some(_) if core.key_source.are_temporary && core.store.engine() == Engine::Postgres => {
            Err(BuildError::NoTokenKeys.into())
        }
        Some(path) if core.key_source.are_temporary => {
            bail!("there are no token keys in {}", path.display())
        }
        _ => Ok(()),
    }
}

pub(crate) async fn run(
    settings: &Settings,
    core: &Core,
    principal: &Principal,
    args: Keys,
) -> anyhow::Result<()> {
    must_be_here(settings, core)?;
    match args.job.unwrap_or(Job::List) {
        Job::List => list(core, args.json).await,
        Job::Show { id } => {
            let views = views(core).await?;
            let found = views.into_iter().find(|view| view["id"] == *id);
            let view = found.with_context(|| format!("there is no token key {id:?}"))?;
            Output { json: args.json }.show(view.to_string().as_bytes())
        }
        Job::Rotate => rotate(settings, core, args.json),
        Job::Reseal => {
            let resealed = core.reseal_secrets(principal).await?;
            match args.json {
                true => print(&json!({ "resealed": resealed }).to_string()),
                false => print(&format!("{resealed} secrets sealed anew")),
            }
        }
    }
}

async fn views(core: &Core) -> anyhow::Result<Vec<Value>> {
    let signing = core.keyring.signing().id();
    let reports = core.token_key_reports().await?;
    Ok(reports.iter().map(|report| view(report, signing == report.id)).collect())
}

async fn list(core: &Core, as_json: bool) -> anyhow::Result<()> {
    let views = views(core).await?;
    if as_json {
        return print(&json!({ "items": views }).to_string());
    }
    let mut text = String::new();
    for view in &views {
        for (name, value) in view.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!("{name:<20} {value}\n"));
        }
        text.push('\n');
    }
    print(&text)
}

fn view(report: &KeyReport, signs: bool) -> Value {
    let KeyReport { id, state, known, held, lacking } = report;
    let is_lost = known.is_some_and(|known| known.lost_at.is_some());
    let has_signed = known.is_some_and(|known| known.signs_since.is_some());
    let state_now = match state {
        None if is_lost => "lost",
        None => "missing",
        Some(_) if signs && has_signed => "signs",
        Some(KeyState::Sign) if !has_signed => "waits to sign",
        Some(_) => "verifies",
    };
    // An older key can be removed once nothing needs it. A key that does not sign yet must stay.
    let may_go = state_now == "verifies" && held.is_nothing();
    json!({
        "id": name_of(*id),
        "state": state_now,
        "first_seen_at": known.map(|known| known.first_seen_at),
        "signs_since": known.and_then(|known| known.signs_since),
        "sessions": held.sessions,
        "sessions_until": held.sessions_until,
        "webhook_secrets": held.webhook_secrets,
        "second_factors": held.second_factors,
        "replicas_without_it": lacking,
        "may_go": may_go,
    })
}

fn rotate(settings: &Settings, core: &Core, as_json: bool) -> anyhow::Result<()> {
    let path = key_file(settings).context(
        "the token keys come from tokens.keys itself: put a line of `tollgate key-gen` in front there",
    )?;
    // If the path is a link, replace the file behind it and keep the link.
    let path = path.canonicalize().with_context(|| path.display().to_string())?;
    let old =
        std::fs::read_to_string(&path).map(Zeroizing::new).with_context(|| path.display().to_string())?;
    let bytes = Zeroizing::new(core.entropy.bytes::<32>());
    let new = Zeroizing::new(format!("{}\n{}", &*Zeroizing::new(hex::encode(*bytes)), &*old));
    if let Err(error) = new.parse::<TokenKeys>() {
        bail!("{}: {error}", path.display());
    }
    replace(&path, new.as_bytes()).with_context(|| path.display().to_string())?;
    let id = name_of(ServerKey::new(*bytes, KeyState::Sign).id());
    if as_json {
        return print(&json!({ "id": id, "file": path }).to_string());
    }
    print(&format!(
        "{}: key {id} is in front.\nBring this file to every replica, in any order. Each reads it within seconds. The \
         new key signs half a minute after the first has it, once all of them do; `tollgate keys` shows when.",
        path.display()
    ))
}

/// Replaces a file atomically. Only its owner can read the new file.
fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let metadata = std::fs::metadata(path)?;
    let fresh = directory.join(format!(".token.keys.{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    let written = file
        .write_all(contents)
        .and_then(|()| file.set_permissions(metadata.permissions()))
        .and_then(|()| same_owner(&file, &metadata))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

/// Gives the new file the same owner, because the server runs as that user.
#[cfg(unix)]
fn same_owner(file: &std::fs::File, old: &std::fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    fchown(file, Some(old.uid()), Some(old.gid()))
}

#[cfg(not(unix))]
fn same_owner(_: &std::fs::File, _: &std::fs::Metadata) -> std::io::Result<()> {
    Ok(())
}
