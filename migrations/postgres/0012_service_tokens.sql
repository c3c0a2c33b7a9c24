-- Tokens for programs: a role of their own, the addresses they may be used from, and rotation with overlap.
alter table admin_tokens drop constraint admin_tokens_role_check;
alter table admin_tokens add constraint admin_tokens_role_check
    check (role in ('operator', 'merchant_admin', 'merchant_viewer', 'service'));
alter table admin_tokens add column allowed_ips text not null default '[]'; -- JSON array of CIDR strings; empty = any address
-- The secret before the newest, and how long it goes on once the newest is first used.
alter table admin_tokens add column earlier_hash bytea unique;
alter table admin_tokens add column earlier_ends_at bigint;
alter table admin_tokens add column overlap_secs bigint;
