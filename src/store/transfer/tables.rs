//! What moves with a merchant, and how PostgreSQL finds it.

/// How PostgreSQL tells the rows of a table apart in the stream. A filter on `merchant_id` needs that column in it.
pub(super) enum Identity {
    /// The primary key contains the merchant.
    Key,
    /// A unique index that is made for the move, so that an update of a session logs no more than before.
    Index,
    /// The whole row, for tables that change rarely.
    Row,
}

/// What moves. The audit trail stays, because it is one chain for each cell. So do records that end within hours,
/// and the attempts of webhooks.
pub(super) const TABLES: [(&str, &str, Identity); 13] = [
    ("merchants", "id", Identity::Key),
    ("licences", "merchant_id", Identity::Key),
    ("api_keys", "merchant_id", Identity::Row),
    ("credentials", "merchant_id", Identity::Row),
    ("secrets", "merchant_id", Identity::Row),
    ("webhook_secrets", "merchant_id", Identity::Row),
    ("sessions", "merchant_id", Identity::Index),
    ("webhook_events", "merchant_id", Identity::Row),
    ("webhook_deliveries", "merchant_id", Identity::Row),
    ("users", "merchant_id", Identity::Row),
    ("recovery_codes", "merchant_id", Identity::Row),
    ("admin_tokens", "merchant_id", Identity::Row),
    ("call_counts", "merchant_id", Identity::Key),
];

/// Rows of these are only added, so their identity does not matter.
pub(super) const LOGS: [(&str, &str); 1] = [("exchanges", "merchant_id")];

pub(super) const SESSIONS_INDEX: &str = "sessions_of_a_move";

/// What to delete before a copy, so that no row of an earlier stay is left. Rows come before those that they refer to.
pub(super) const FORGET: [&str; 19] = [
    "delete from webhook_attempts where delivery_id in (select id from webhook_deliveries where merchant_id = $1)",
    "delete from webhook_deliveries where merchant_id = $1",
    "delete from webhook_events where merchant_id = $1",
    "delete from webhook_secrets where api_key_id in (select id from api_keys where merchant_id = $1)",
    "delete from sessions where merchant_id = $1",
    "delete from client_activity where credential_id in (select id from credentials where merchant_id = $1)",
    "delete from secrets where merchant_id = $1",
    "delete from credentials where merchant_id = $1",
    "delete from api_keys where merchant_id = $1",
    "delete from licences where merchant_id = $1",
    "delete from exchanges where merchant_id = $1",
    "delete from call_counts where merchant_id = $1",
    "delete from console_sessions where user_id in (select id from users where merchant_id = $1)",
    "delete from sign_in_links where user_id in (select id from users where merchant_id = $1)",
    "delete from recovery_codes where user_id in (select id from users where merchant_id = $1)",
    "delete from idempotency_keys where actor_id in (select id from users where merchant_id = $1)",
    "delete from users where merchant_id = $1",
    "delete from admin_tokens where merchant_id = $1",
    "delete from merchants where id = $1",
];
