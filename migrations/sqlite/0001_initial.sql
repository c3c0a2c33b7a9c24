-- Times are microseconds since 1970-01-01 UTC: one type on both engines, exact, and compared as numbers.
-- Read one with: select datetime(created_at / 1000000, 'unixepoch') from merchants;

create table merchants (
    id          blob   not null primary key,
    name        text   not null,
    gateway     text   not null,
    status      text   not null check (status in ('active', 'suspended')),
    -- Raised by every change to anything that decides a call: see src/domain/merchant.rs.
    revision    integer not null,
    created_at  integer not null,
    updated_at  integer not null
) strict;

create table licences (
    merchant_id blob    not null references merchants (id),
    product     text    not null check (product in ('api_keys', 'enhanced_security')),
    active      integer not null,
    expires_at  integer,
    expiring_told_for integer,
    expired_told_for  integer,
    updated_at  integer  not null,
    primary key (merchant_id, product)
) strict;
create index licences_by_expiry on licences (expires_at) where expires_at is not null;

create table api_keys (
    id                  blob    not null primary key,
    merchant_id         blob    not null references merchants (id),
    name                text    not null,
    environment         text    not null check (environment in ('sandbox', 'live')),
    allowed_ips         text    not null, -- JSON array of CIDR strings; empty = any address
    ip_mode             text    not null check (ip_mode in ('enforce', 'observe')),
    webhook_format      text    not null check (webhook_format in ('single_json', 'multiple_json')),
    webhook_url         text,
    webhook_disabled_at integer,
    webhook_failing_since integer,
    -- The deadlines for which `expiring` and `expired` were announced.
    expiring_told_for   integer,
    expired_told_for    integer,
    expires_at          integer,
    revoked_at          integer,
    leaked              integer not null,
    version             integer  not null, -- for If-Match
    created_at          integer  not null,
    updated_at          integer  not null
) strict;
create index api_keys_by_merchant on api_keys (merchant_id, id);
create index api_keys_by_expiry on api_keys (expires_at) where expires_at is not null;

create table credentials (
    id          blob    not null primary key,
    merchant_id blob    not null references merchants (id),
    api_key_id  blob    not null references api_keys (id),
    client_id   text    not null unique,
    enabled     integer not null,
    -- Raised when the credentials are switched OFF: a session of an earlier epoch is over.
    epoch       integer  not null,
    version     integer  not null, -- for If-Match
    created_at  integer  not null,
    updated_at  integer  not null
) strict;
create index credentials_by_merchant on credentials (merchant_id, id);
create index credentials_by_api_key on credentials (api_key_id);

-- The secrets of API keys and of client credentials: a rotation adds one and lets the earlier one end.
create table secrets (
    id             blob   not null primary key,
    merchant_id    blob   not null references merchants (id),
    owner_kind     text   not null check (owner_kind in ('api_key', 'credential')),
    owner_id       blob   not null,
    number         integer not null, -- 1, 2, 3 ... of one owner: which is newer
    hash           blob  not null unique, -- SHA-256; the secret itself is 32 random bytes
    hint           text   not null,        -- its last characters, to tell it apart
    overlap_secs   integer,                 -- how long its predecessor lives once this one is first used
    created_at     integer not null,
    first_used_at  integer,
    last_used_at   integer,
    last_used_ip   text,
    ends_at        integer
) strict;
create index secrets_by_merchant on secrets (merchant_id);
create unique index secrets_by_owner on secrets (owner_id, number);

-- Signing secrets of webhooks: sealed with a key derived from the server token key, since they must be read again.
create table webhook_secrets (
    id          blob   not null primary key,
    api_key_id  blob   not null references api_keys (id),
    sealed      blob  not null,
    created_at  integer not null,
    ends_at     integer
) strict;
create index webhook_secrets_by_api_key on webhook_secrets (api_key_id);

-- One row for the whole life of a session. No foreign keys: the statement that inserts joins the merchant,
-- and no indexed column ever changes, as PostgreSQL needs to rotate in place (HOT).
create table sessions (
    id             blob   not null primary key, -- UUIDv7: in order of start, which is what the sweeper walks
    merchant_id    blob   not null,
    credential_id  blob   not null,
    epoch          integer not null,
    token_key_id   integer not null,
    secret         blob  not null,
    generation     integer not null,
    started_at     integer not null,
    rotated_at     integer not null,
    expires_at     integer not null,
    revoked_at     integer,
    revoked_reason text
) strict;
create index sessions_by_merchant on sessions (merchant_id, id);

create table exchanges (
    id          blob   not null,
    merchant_id blob   not null,
    at          integer not null,
    request_id  text   not null,
    method      text   not null,
    path        text   not null,
    status      integer not null,
    error       text,
    reason      text,
    client_ip   text   not null,
    hops        text   not null, -- JSON array of the proxies it came through, nearest last
    api_key_id  blob,
    client_id   text,
    latency_us  integer not null,
    primary key (merchant_id, id)
) strict, without rowid;
create index exchanges_by_request_id on exchanges (merchant_id, request_id);

create table audit_events (
    seq         integer not null primary key,
    id          blob   not null unique,
    at          integer not null,
    merchant_id blob,
    actor_kind  text   not null,
    actor_id    text,
    actor_name  text,
    action      text   not null,
    object_kind text   not null,
    object_id   text,
    outcome     text   not null check (outcome in ('done', 'refused')),
    client_ip   text,
    request_id  text,
    detail      text   not null, -- JSON object; never a secret
    hash        blob  not null  -- over this row and the hash before it
) strict;
create index audit_events_by_merchant on audit_events (merchant_id, seq);

-- The head of the hash chain: its one row is also the lock that puts appends in order.
create table audit_chain (
    id   integer not null primary key check (id = 1),
    seq  integer not null,
    hash blob  not null
) strict;
insert into audit_chain (id, seq, hash)
values (1, 0, zeroblob(32));

create table webhook_events (
    id              blob   not null primary key,
    merchant_id     blob   not null references merchants (id),
    type            text   not null,
    data            text   not null, -- JSON
    idempotency_key text,
    created_at      integer not null
) strict;
create index webhook_events_by_merchant on webhook_events (merchant_id, id);
create unique index webhook_events_idempotency on webhook_events (merchant_id, idempotency_key);

create table webhook_deliveries (
    id              blob   not null primary key,
    event_id        blob   not null references webhook_events (id),
    merchant_id     blob   not null,
    api_key_id      blob   not null,
    state           text   not null check (state in ('pending', 'delivered', 'failed')),
    attempts        integer not null, -- ever made; numbers the rows of webhook_attempts
    tries           integer not null, -- made in this round: redelivering starts another
    began_at        integer,           -- the first attempt of this round
    next_attempt_at integer not null, -- also the claim: a sender moves it forward before it sends
    created_at      integer not null,
    finished_at     integer
) strict;
-- One tells which endpoints have something due, the other what it is.
create index webhook_deliveries_due on webhook_deliveries (next_attempt_at, api_key_id) where state = 'pending';
create index webhook_deliveries_of_endpoint on webhook_deliveries (api_key_id, next_attempt_at) where state = 'pending';
create index webhook_deliveries_by_merchant on webhook_deliveries (merchant_id, id);
create index webhook_deliveries_by_event on webhook_deliveries (event_id);

create table webhook_attempts (
    delivery_id blob   not null references webhook_deliveries (id),
    number      integer not null,
    at          integer not null,
    status      integer,
    error       text,
    latency_us  integer not null,
    response    text   not null, -- the first 1 KiB of the answer
    primary key (delivery_id, number)
) strict;

create table users (
    id              blob   not null primary key,
    email           text   not null unique, -- lower case
    role            text   not null check (role in ('operator', 'merchant_admin', 'merchant_viewer')),
    merchant_id     blob   references merchants (id),
    password_hash   text   not null,        -- argon2id, PHC string
    totp_secret     blob,                  -- sealed
    failed_logins   integer not null,
    locked_until    integer,
    disabled_at     integer,
    version         integer not null,
    created_at      integer not null,
    updated_at      integer not null,
    last_login_at   integer
) strict;

create table admin_tokens (
    id           blob   not null primary key,
    name         text   not null,
    role         text   not null check (role in ('operator', 'merchant_admin', 'merchant_viewer')),
    merchant_id  blob   references merchants (id),
    permissions  text   not null, -- JSON array of names
    hash         blob  not null unique,
    created_at   integer not null,
    expires_at   integer,
    revoked_at   integer,
    last_used_at integer
) strict;

-- The first answer to a creation, kept 24 hours for a client that lost it. Sealed, with the request's
-- hash: both may tell of secrets.
create table idempotency_keys (
    actor_id     blob   not null,
    key          text   not null,
    sealed       blob  not null,
    created_at   integer not null,
    primary key (actor_id, key)
) strict;
create index idempotency_keys_by_age on idempotency_keys (created_at);
