//! The use cases, one file each. There is no HTTP here: a flow takes domain values and returns an outcome.
//!
//! Every flow returns the same [`error::Error`]: a refusal, or a failure of the server, which is answered
//! with 503 or 500.

pub mod admin_access;
pub mod admission;
pub mod audit_chain;
pub mod authorize;
pub mod blocked;
pub mod changes;
pub mod console_session;
pub mod counters;
pub mod deliver;
pub mod error;
pub mod failures;
pub mod figures;
pub mod idempotency;
pub mod introspect;
pub mod key_activity;
pub mod leaks;
pub mod limits;
pub mod live;
pub mod manage;
pub mod manage_credentials;
pub mod manage_keys;
pub mod manage_merchants;
pub mod manage_tokens;
pub mod manage_users;
pub mod manage_webhooks;
pub mod move_merchant;
pub mod notices;
pub mod onboard;
pub mod password;
pub mod pings;
pub mod principal;
pub mod queries;
pub mod refresh;
pub mod refusals;
pub mod revoke;
pub mod rotation;
pub mod scopes;
mod sealing;
pub mod second_factor;
pub mod sent_webhook;
pub mod sign_in;
pub mod sign_in_choice;
pub mod token_advice;
pub mod token_keys;
pub mod trail;
pub mod usage;
pub mod verify;

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::cell::{Cell, CellId};
use crate::domain::clock::{Clock, Timestamp};
use crate::domain::destination::DestinationRules;
use crate::domain::entropy::Entropy;
use crate::domain::keyring::Keyring;
use crate::domain::session::Lifetimes;
use crate::store::Store;

/// How often a flow decides again because the merchant has changed in the meantime. Each time, another change
/// was committed between a read and a write. SQLite's only writer handles changes and token calls in turn, so
/// a burst of changes to one merchant can cause this many times.
const DECISIONS_MAX: usize = 64;

/// Everything that flows need.
pub struct Core {
    pub store: Store,
    pub keyring: Arc<Keyring>,
    pub key_source: token_keys::KeySource,
    pub clock: Clock,
    pub entropy: Entropy,
    /// The cell that this is. `None` if there are no cells.
    pub cell: Option<Cell>,
    pub lifetimes: Lifetimes,
    /// The scopes that exist, from `[tokens] scopes`. Empty means any name.
    pub known_scopes: Vec<String>,
    /// What each scope allows, by name, if the settings describe it.
    pub scope_descriptions: HashMap<String, String>,
    /// The issuer from the settings. It is never taken from a request.
    pub issuer: String,
    pub usage: usage::Usage,
    pub limits: limits::Limits,
    pub counters: counters::Counters,
    /// Where webhooks may go.
    pub destinations: DestinationRules,
    pub blocked: blocked::Blocked,
    /// Readers of the audit trail.
    pub readers: trail::Readers,
    pub pings: pings::Pings,
    pub refusals: refusals::Refusals,
    pub console: sign_in::Console,
}

impl Core {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Counts something that is not here, if it shows that it was made in another cell. Returns whether it does.
    fn is_of_another_cell(&self, shown: Option<CellId>, count: &counters::Count) -> bool {
        let is_elsewhere = self.cell.is_some_and(|cell| cell.is_elsewhere(shown));
        if is_elsewhere {
            count.add_one();
        }
        is_elsewhere
    }
}

/// Shared by every request and job.
pub type SharedCore = Arc<Core>;
