-- The console: who is signed in, and the other ways in than a password.

-- The step of the last one-time code that was accepted: none is accepted twice (RFC 6238 5.2).
alter table users add column totp_last_step integer;
create index users_by_merchant on users (merchant_id);

create table console_sessions (
    hash         blob    not null primary key, -- SHA-256 of what the cookie holds
    user_id      blob    not null references users (id),
    -- Set between the password and the second factor: good for nothing but to send that.
    awaits_totp  integer not null,
    -- A link stands in for a forgotten password: such a session may set a new one.
    by_link      integer not null,
    created_at   integer  not null,
    last_seen_at integer  not null,
    expires_at   integer  not null,
    client_ip    text    not null
) strict;
create index console_sessions_by_user on console_sessions (user_id);
create index console_sessions_by_expiry on console_sessions (expires_at);

-- Each is good for one sign-in without the authenticator app.
create table recovery_codes (
    hash       blob    not null primary key, -- SHA-256; 80 random bits
    user_id    blob    not null references users (id),
    created_at integer not null,
    used_at    integer
) strict;
create index recovery_codes_by_user on recovery_codes (user_id);

-- One-time links that sign a user in without a password.
create table sign_in_links (
    hash       blob    not null primary key, -- SHA-256; 32 random bytes
    user_id    blob    not null references users (id),
    created_at integer not null,
    expires_at integer not null,
    used_at    integer
) strict;
create index sign_in_links_by_user on sign_in_links (user_id);
