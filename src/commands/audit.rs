//! `tollgate audit`: verifies and prints the audit trail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use tollgate::domain::keyring::name_of;
use tollgate::flows::Core;
use tollgate::flows::audit_chain::ChainVerdict;
use tollgate::flows::principal::Principal;
use tollgate::flows::trail::Reading;
use tollgate::http::admin::audit::AuditEventView;
use tollgate::http::admin::body;
use tollgate::store::audit::Filter;
use tollgate::store::audit_head::Head;

use super::print;

#[derive(Clone, Subcommand)]
pub(crate) enum Job {
    /// Verify the hash chain. Exits with 0 if it is intact.
    Verify {
        /// A file with the output of `tollgate audit head --json`. The trail must still have that event.
        #[arg(long, value_name = "FILE")]
        head: Option<PathBuf>,
    },
    /// Print events, oldest first, one line of JSON each.
    Tail {
        /// Print only events with a higher `seq`.
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// Keep running, and print new events as they come.
        #[arg(long)]
        follow: bool,
    },
    /// Print the number and hash of the last event. Keep them in a place that nobody with write access to the
    /// database can change.
    Head {
        /// Print {"seq", "hash"}.
        #[arg(long)]
        json: bool,
    },
}

/// The shortest part of a hash that is accepted: /metrics shows this much.
const HASH_BYTES_MIN: usize = 6;

/// A head that was kept outside the database.
#[derive(Deserialize, Serialize)]
struct KeptHead {
    seq: i64,
    /// At least the first 12 hexadecimal digits.
    hash: String,
}

pub(crate) async fn run(core: &Core, principal: &Principal, job: Job) -> anyhow::Result<()> {
    match job {
        Job::Tail { after, follow } => tail(core, principal, after, follow).await,
        Job::Verify { head } => verify(core, head.as_deref()).await,
        Job::Head { json } => {
            let Head { seq, hash } = core.audit_head().await?;
            let hash = hex::encode(hash);
            if json {
                print(&serde_json::to_string(&KeptHead { seq, hash })?)
            } else {
                print(&format!("{seq} {hash}"))
            }
        }
    }
}

async fn tail(core: &Core, principal: &Principal, mut after: i64, follow: bool) -> anyhow::Result<()> {
    let wait = if follow { Duration::from_secs(60) } else { Duration::ZERO };
    loop {
        let reading = Reading { filter: Filter::default(), after, limit: 200, wait };
        let found = core.trail(principal, reading, || false).await?;
        if found.is_empty() && !follow {
            return Ok(());
        }
        for event in found {
            after = event.seq;
            print(std::str::from_utf8(&body::json_bytes(&AuditEventView::from(event)))?)?;
        }
    }
}

async fn verify(core: &Core, head: Option<&Path>) -> anyhow::Result<()> {
    let mut verdict = core.verify_audit_chain().await?;
    if let (ChainVerdict::Holds { .. }, Some(path)) = (verdict, head) {
        verdict = core.verify_audit_head(&kept_head(path)?).await?.unwrap_or(verdict);
    }
    match verdict {
        ChainVerdict::Holds { events } => print(&format!("the chain holds: {events} events")),
        ChainVerdict::Broken { seq } => bail!("the chain is broken at event {seq}"),
        ChainVerdict::ForgedCut { seq } => {
            bail!("the chain was cut at event {seq}, but not by this server: events are missing")
        }
        ChainVerdict::Short { last, expected } => {
            bail!("events are missing: the last event is {last}, but the chain ends at {expected}")
        }
        ChainVerdict::ForgedHead { seq } => {
            bail!("no server has sealed the end of the chain at event {seq}: events may be missing")
        }
        ChainVerdict::KeyMissing { key } => {
            bail!("the chain was sealed with token key {}, which is missing here", name_of(key))
        }
        ChainVerdict::NotTheHeadKept { seq } => {
            bail!(
                "event {seq} is missing or differs from the given head: the trail was restored from a backup, changed, or \
                 cut by age"
            )
        }
    }
}

fn kept_head(path: &Path) -> anyhow::Result<Head> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let bad = || format!("{}: not the output of `tollgate audit head --json`", path.display());
    let kept: KeptHead = serde_json::from_str(&text).with_context(bad)?;
    let hash = hex::decode(&kept.hash).with_context(bad)?;
    if !(HASH_BYTES_MIN..=32).contains(&hash.len()) {
        bail!(bad());
    }
    Ok(Head { seq: kept.seq, hash })
}
