//! Opens the store and the token keys, and builds the core that all flows use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;

use super::{BuildError, Create};
use crate::config::{self, DatabaseUrl, Settings, TokenKeys};
use crate::domain::cell::Cell;
use crate::domain::clock::Clock;
use crate::domain::entropy::Entropy;
use crate::domain::keyring::{Keyring, ServerKey};
use crate::flows::blocked::Blocked;
use crate::flows::counters::Counters;
use crate::flows::limits::Limits;
use crate::flows::pings::Pings;
use crate::flows::refusals::Refusals;
use crate::flows::sign_in::Console;
use crate::flows::token_keys::{KeySource, ReadKeys};
use crate::flows::trail::Readers;
use crate::flows::usage::Usage;
use crate::flows::{self, Core};
use crate::store::audit_head::Sealer;
use crate::store::cell;
use crate::store::postgres::ReadAgain;
use crate::store::{Engine, Make, Options, Store};

/// The token keys of an embedded installation, in the data directory.
const TOKEN_KEYS_FILE: &str = "token.keys";

/// Opens the store, with its schema up to date.
pub async fn open_store(settings: &Settings, create: Create) -> Result<Store, BuildError> {
    let url = settings.database.url.expose();
    let is_embedded = url == DatabaseUrl::sqlite_in(&settings.server.data_dir).expose();
    let make = match create {
        Create::Nothing | Create::Beside => Make::Nothing,
        Create::First | Create::Embedded if !is_embedded => Make::Schema,
        Create::First | Create::Embedded | Create::Database | Create::Everything => Make::File,
    };
    if is_embedded && make == Make::File {
        make_directory(&settings.server.data_dir)?;
    }
    Ok(Store::open(Options {
        url,
        make,
        connections_max: settings.database.connections_max,
        timeout: settings.database.timeout,
        cache_bytes_max: settings.database.cache_bytes_max,
        read_again: settings.database.url_file.as_deref().map(reads_again),
    })
    .await?)
}

/// Opens what flows need, without HTTP: for commands that work beside a running server.
pub async fn open_core(
    settings: &Settings,
    create: Create,
    clock: Clock,
    entropy: Entropy,
) -> Result<Core, BuildError> {
    let store = open_store(settings, create).await?;
    settle_cell(&store, settings.cell, create).await?;
    let entropy = match settings.cell {
        Some(cell) => entropy.of_cell(cell.id),
        None => entropy,
    };
    let keys_file = key_file(settings);
    let keyring = match Keyring::of(server_keys(&settings.tokens.keys)) {
        Some(keyring) => Some(keyring),
        None => local_keyring(settings, create, &store, &clock, &entropy).await?,
    };
    let are_temporary = keyring.is_none();
    let keyring =
        keyring.or_else(|| Keyring::of([ServerKey::fresh(&entropy)])).expect("a fresh key makes a keyring");
    let keyring = Arc::new(keyring);
    store.seal_with(Sealer { keyring: Arc::clone(&keyring), entropy: entropy.clone() });
    Ok(Core {
        store,
        keyring,
        key_source: KeySource {
            read: keys_file.map(|path| {
                let read = move || match TokenKeys::from_file(&path) {
                    Ok(keys) => Ok(server_keys(&keys)),
                    Err(error) => Err(format!("{}: {error}", path.display())),
                };
                Box::new(read) as ReadKeys
            }),
            are_temporary,
            are_checked: AtomicBool::new(false),
            replica: uuid::Uuid::from_bytes(entropy.bytes()),
            wanted: Notify::new(),
        },
        entropy,
        cell: settings.cell,
        lifetimes: settings.tokens.lifetimes,
        known_scopes: settings.tokens.scopes.clone(),
        scope_descriptions: settings.tokens.scope_descriptions.clone(),
        issuer: settings.server.issuer.clone(),
        usage: Usage::default(),
        limits: Limits::new(settings.limits, &clock),
        counters: Counters::default(),
        clock,
        destinations: settings.webhooks.destinations,
        blocked: Blocked::default(),
        readers: Readers::default(),
        pings: Pings::default(),
        refusals: Refusals::default(),
        console: Console::new(settings.console.totp_required_for_live),
    })
}

/// Makes sure that the database belongs to the cell of the settings. The first command that may change a new
/// database gives it to the cell.
async fn settle_cell(store: &Store, wanted: Option<Cell>, create: Create) -> Result<(), BuildError> {
    let mut of = cell::read(&mut store.read().await?).await?;
    if let (None, Some(wanted)) = (of, wanted) {
        if !wanted.is_default && cell::has_merchants(&mut store.read().await?).await? {
            return Err(BuildError::NotDefaultCell);
        }
        if create == Create::Nothing {
            return Ok(());
        }
        let mut tx = store.begin().await?;
        cell::claim(&mut tx, wanted.id).await?;
        tx.commit().await?;
        of = cell::read(&mut store.read().await?).await?;
    }
    let wanted = wanted.map(|cell| cell.id);
    if of == wanted { Ok(()) } else { Err(BuildError::ForeignCell { of, wanted }) }
}

fn reads_again(url_file: &Path) -> ReadAgain {
    let path = url_file.to_owned();
    Arc::new(move || match DatabaseUrl::read_from(&path) {
        Ok(url) => Some(url.expose().to_owned()),
        Err(error) => {
            tracing::error!(%error, "database.url_file");
            None
        }
    })
}

fn make_directory(path: &Path) -> Result<(), BuildError> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path).map_err(|source| BuildError::File { path: path.to_owned(), source })
}

/// Registers this replica and its token keys. Fails if a key is missing that the database needs, unless
/// `may_give_up` is set.
pub(super) async fn join(core: &Core, may_give_up: bool) -> Result<(), BuildError> {
    match core.choose_token_key().await {
        // The background job tries again until the store accepts writes.
        Err(error) if error.is_temporary() => tracing::warn!(%error, "no token key could be chosen yet"),
        chosen => chosen?,
    }
    let missing = core.missing_token_keys().await?;
    if missing.is_empty() {
        core.key_source.note_checked();
        return Ok(());
    }
    let told = flows::token_keys::in_words(&missing);
    if !may_give_up {
        core.leave().await?;
        return Err(BuildError::MissingTokenKeys(told));
    }
    tracing::warn!(missing = told, "token keys are given up for lost");
    core.give_up_token_keys(&missing.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await?;
    core.key_source.note_checked();
    Ok(())
}

fn server_keys(keys: &TokenKeys) -> Vec<ServerKey> {
    keys.bytes().iter().zip(keys.states()).map(|(key, state)| ServerKey::new(*key, *state)).collect()
}

/// The file with the token keys. `None` if the settings contain the keys themselves.
pub fn key_file(settings: &Settings) -> Option<PathBuf> {
    match &settings.tokens {
        tokens if tokens.keys_file.is_some() => tokens.keys_file.clone(),
        tokens if tokens.keys.bytes().is_empty() => Some(settings.server.data_dir.join(TOKEN_KEYS_FILE)),
        _ => None,
    }
}

/// The token keys in the data directory. Makes one if there is none and the database needs none. `None` if
/// there is none and a command can do without.
async fn local_keyring(
    settings: &Settings,
    create: Create,
    store: &Store,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<Option<Keyring>, BuildError> {
    let path = settings.server.data_dir.join(TOKEN_KEYS_FILE);
    let may_be_local = store.engine() == Engine::Sqlite || create == Create::Everything;
    if !path.exists() || !may_be_local {
        let is_needed = flows::token_keys::is_in_use(store, clock.now()).await?;
        match create {
            Create::Nothing => return Ok(None),
            _ if !may_be_local => return Err(BuildError::NoTokenKeys),
            Create::Beside | Create::First if is_needed => return Ok(None),
            _ if is_needed && !settings.tokens.allow_missing_keys => {
                return Err(BuildError::MissingTokenKeys(format!("there is no {}", path.display())));
            }
            _ => make_key(&path, &settings.server.data_dir, entropy)?,
        }
    }
    let text =
        config::read_secret(&path).map_err(|source| BuildError::File { path: path.clone(), source })?;
    let keys = text.parse::<TokenKeys>().map_err(|_| BuildError::BadTokenKeys(path.clone()))?;
    Keyring::of(server_keys(&keys)).map(Some).ok_or(BuildError::BadTokenKeys(path))
}

/// Makes a token key, unless another process is just making one.
fn make_key(path: &Path, data_dir: &Path, entropy: &Entropy) -> Result<(), BuildError> {
    let fail = |source| BuildError::File { path: path.to_owned(), source };
    make_directory(data_dir)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => {
            use std::io::Write;
            writeln!(file, "{}", hex::encode(entropy.bytes::<32>())).map_err(fail)?;
            // The key must be as durable as the tokens that it seals.
            file.sync_all().map_err(fail)?;
            tracing::info!(path = %path.display(), "made a token key");
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(fail(error)),
    }
}
