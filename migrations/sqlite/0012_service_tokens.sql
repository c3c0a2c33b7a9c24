-- Tokens for programs: a role of their own, the addresses they may be used from, and rotation with overlap.
-- The table is made anew, because a check cannot be altered here.
create table admin_tokens_new (
    id           blob   not null primary key,
    name         text   not null,
    role         text   not null check (role in ('operator', 'merchant_admin', 'merchant_viewer', 'service')),
    merchant_id  blob   references merchants (id),
    permissions  text   not null, -- JSON array of names
    hash         blob  not null unique,
    created_at   integer not null,
    expires_at   integer,
    revoked_at   integer,
    last_used_at integer,
    allowed_ips  text   not null default '[]', -- JSON array of CIDR strings; empty = any address
    -- The secret before the newest, and how long it goes on once the newest is first used.
    earlier_hash    blob unique,
    earlier_ends_at integer,
    overlap_secs    integer
) strict;
insert into admin_tokens_new
    (id, name, role, merchant_id, permissions, hash, created_at, expires_at, revoked_at, last_used_at)
select id, name, role, merchant_id, permissions, hash, created_at, expires_at, revoked_at, last_used_at
from admin_tokens;
drop table admin_tokens;
alter table admin_tokens_new rename to admin_tokens;
