-- Times are microseconds since 1970-01-01 UTC: one type on both engines, exact, and compared as numbers.
-- Read one with: select to_timestamp(created_at / 1e6) from merchants;

create table merchants (
    id          uuid   primary key,
    name        text   not null,
    gateway     text   not null,
    status      text   not null check (status in ('active', 'suspended')),
    -- Raised by every change to anything that decides a call: see src/domain/merchant.rs.
    revision    bigint not null,
    created_at  bigint not null,
    updated_at  bigint not null
) with (fillfactor = 80);

create table licences (
    merchant_id uuid    not null references merchants (id),
    product     text    not null check (product in ('api_keys', 'enhanced_security')),
    active      boolean not null,
    expires_at  bigint,
    expiring_told_for bigint,
    expired_told_for  bigint,
    updated_at  bigint  not null,
    primary key (merchant_id, product)
);
create index licences_by_expiry on licences (expires_at) where expires_at is not null;

create table api_keys (
    id                  uuid    primary key,
    merchant_id         uuid    not null references merchants (id),
    name                text    not null,
    environment         text    not null check (environment in ('sandbox', 'live')),
    allowed_ips         text    not null, -- JSON array of CIDR strings; empty = any address
    ip_mode             text    not null check (ip_mode in ('enforce', 'observe')),
    webhook_format      text    not null check (webhook_format in ('single_json', 'multiple_json')),
    webhook_url         text,
    webhook_disabled_at bigint,
    webhook_failing_since bigint,
    -- The deadlines for which `expiring` and `expired` were announced.
    expiring_told_for   bigint,
    expired_told_for    bigint,
    expires_at          bigint,
    revoked_at          bigint,
    leaked              boolean not null,
    version             bigint  not null, -- for If-Match
    created_at          bigint  not null,
    updated_at          bigint  not null
);
create index api_keys_by_merchant on api_keys (merchant_id, id);
create index api_keys_by_expiry on api_keys (expires_at) where expires_at is not null;

create table credentials (
    id          uuid    primary key,
    merchant_id uuid    not null references merchants (id),
    api_key_id  uuid    not null references api_keys (id),
    client_id   text    not null unique,
    enabled     boolean not null,
    -- Raised when the credentials are switched OFF: a session of an earlier epoch is over.
    epoch       bigint  not null,
    version     bigint  not null, -- for If-Match
    created_at  bigint  not null,
    updated_at  bigint  not null
);
create index credentials_by_merchant on credentials (merchant_id, id);
create index credentials_by_api_key on credentials (api_key_id);

-- The secrets of API keys and of client credentials: a rotation adds one and lets the earlier one end.
create table secrets (
    id             uuid   primary key,
    merchant_id    uuid   not null references merchants (id),
    owner_kind     text   not null check (owner_kind in ('api_key', 'credential')),
    owner_id       uuid   not null,
    number         bigint not null, -- 1, 2, 3 ... of one owner: which is newer
    hash           bytea  not null unique, -- SHA-256; the secret itself is 32 random bytes
    hint           text   not null,        -- its last characters, to tell it apart
    overlap_secs   bigint,                 -- how long its predecessor lives once this one is first used
    created_at     bigint not null,
    first_used_at  bigint,
    last_used_at   bigint,
    last_used_ip   text,
    ends_at        bigint
) with (fillfactor = 70);
create index secrets_by_merchant on secrets (merchant_id);
create unique index secrets_by_owner on secrets (owner_id, number);

-- Signing secrets of webhooks: sealed with a key derived from the server token key, since they must be read again.
create table webhook_secrets (
    id          uuid   primary key,
    api_key_id  uuid   not null references api_keys (id),
    sealed      bytea  not null,
    created_at  bigint not null,
    ends_at     bigint
);
create index webhook_secrets_by_api_key on webhook_secrets (api_key_id);

-- One row for the whole life of a session. No foreign keys: the statement that inserts joins the merchant,
-- and no indexed column ever changes, so that PostgreSQL rotates in place (HOT).
create table sessions (
    id             uuid   primary key, -- UUIDv7: in order of start, which is what the sweeper walks
    merchant_id    uuid   not null,
    credential_id  uuid   not null,
    epoch          bigint not null,
    token_key_id   bigint not null,
    secret         bytea  not null,
    generation     bigint not null,
    started_at     bigint not null,
    rotated_at     bigint not null,
    expires_at     bigint not null,
    revoked_at     bigint,
    revoked_reason text
) with (fillfactor = 80);
create index sessions_by_merchant on sessions (merchant_id, id);

create table exchanges (
    id          uuid   not null,
    merchant_id uuid   not null,
    at          bigint not null,
    request_id  text   not null,
    method      text   not null,
    path        text   not null,
    status      bigint not null,
    error       text,
    reason      text,
    client_ip   text   not null,
    hops        text   not null, -- JSON array of the proxies it came through, nearest last
    api_key_id  uuid,
    client_id   text,
    latency_us  bigint not null,
    primary key (merchant_id, id)
);
create index exchanges_by_request_id on exchanges (merchant_id, request_id);

create table audit_events (
    seq         bigint primary key,
    id          uuid   not null unique,
    at          bigint not null,
    merchant_id uuid,
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
    hash        bytea  not null  -- over this row and the hash before it
);
create index audit_events_by_merchant on audit_events (merchant_id, seq);

-- The head of the hash chain: its one row is also the lock that puts appends in order.
create table audit_chain (
    id   bigint primary key check (id = 1),
    seq  bigint not null,
    hash bytea  not null
);
insert into audit_chain (id, seq, hash)
values (1, 0, '\x0000000000000000000000000000000000000000000000000000000000000000');

create table webhook_events (
    id              uuid   primary key,
    merchant_id     uuid   not null references merchants (id),
    type            text   not null,
    data            text   not null, -- JSON
    idempotency_key text,
    created_at      bigint not null
);
create index webhook_events_by_merchant on webhook_events (merchant_id, id);
create unique index webhook_events_idempotency on webhook_events (merchant_id, idempotency_key);

create table webhook_deliveries (
    id              uuid   primary key,
    event_id        uuid   not null references webhook_events (id),
    merchant_id     uuid   not null,
    api_key_id      uuid   not null,
    state           text   not null check (state in ('pending', 'delivered', 'failed')),
    attempts        bigint not null, -- ever made; numbers the rows of webhook_attempts
    tries           bigint not null, -- made in this round: redelivering starts another
    began_at        bigint,           -- the first attempt of this round
    next_attempt_at bigint not null, -- also the claim: a sender moves it forward before it sends
    created_at      bigint not null,
    finished_at     bigint
);
-- One tells which endpoints have something due, the other what it is.
create index webhook_deliveries_due on webhook_deliveries (next_attempt_at, api_key_id) where state = 'pending';
create index webhook_deliveries_of_endpoint on webhook_deliveries (api_key_id, next_attempt_at) where state = 'pending';
create index webhook_deliveries_by_merchant on webhook_deliveries (merchant_id, id);
create index webhook_deliveries_by_event on webhook_deliveries (event_id);

create table webhook_attempts (
    delivery_id uuid   not null references webhook_deliveries (id),
    number      bigint not null,
    at          bigint not null,
    status      bigint,
    error       text,
    latency_us  bigint not null,
    response    text   not null, -- the first 1 KiB of the answer
    primary key (delivery_id, number)
);

create table users (
    id              uuid   primary key,
    email           text   not null unique, -- lower case
    role            text   not null check (role in ('operator', 'merchant_admin', 'merchant_viewer')),
    merchant_id     uuid   references merchants (id),
    password_hash   text   not null,        -- argon2id, PHC string
    totp_secret     bytea,                  -- sealed
    failed_logins   bigint not null,
    locked_until    bigint,
    disabled_at     bigint,
    version         bigint not null,
    created_at      bigint not null,
    updated_at      bigint not null,
    last_login_at   bigint
);

create table admin_tokens (
    id           uuid   primary key,
    name         text   not null,
    role         text   not null check (role in ('operator', 'merchant_admin', 'merchant_viewer')),
    merchant_id  uuid   references merchants (id),
    permissions  text   not null, -- JSON array of names
    hash         bytea  not null unique,
    created_at   bigint not null,
    expires_at   bigint,
    revoked_at   bigint,
    last_used_at bigint
);

-- The first answer to a creation, kept 24 hours for a client that lost it. Sealed, with the request's
-- hash: both may tell of secrets.
create table idempotency_keys (
    actor_id     uuid   not null,
    key          text   not null,
    sealed       bytea  not null,
    created_at   bigint not null,
    primary key (actor_id, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);
