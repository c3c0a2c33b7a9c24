-- An e-mail address has one user at each merchant and one at the platform, instead of one in all: else whoever makes a
-- user learns where else the address has one. The table is made anew, because a constraint cannot be altered here;
-- what refers to it is held to that again when the transaction ends.
pragma defer_foreign_keys = on;
create table users_before as select * from users;
drop table users;
create table users (
    id                  blob    not null primary key,
    email               text    not null, -- lower case
    role                text    not null check (role in ('operator', 'merchant_admin', 'merchant_viewer')),
    merchant_id         blob    references merchants (id),
    password_hash       text    not null, -- argon2id, PHC string; all of one address have the same salt
    totp_secret         blob, -- sealed
    failed_logins       integer not null,
    locked_until        integer,
    disabled_at         integer,
    version             integer not null,
    created_at          integer not null,
    updated_at          integer not null,
    last_login_at       integer,
    totp_last_step      integer,
    failed_proofs       integer not null default 0,
    proofs_locked_until integer,
    -- Whether this password was right once: then it counts no longer as a guess at the address's other users.
    password_was_right  integer not null default false
) strict;
insert into users
    (id, email, role, merchant_id, password_hash, totp_secret, totp_last_step, failed_logins, locked_until,
     failed_proofs, proofs_locked_until, disabled_at, version, created_at, updated_at, last_login_at)
select id, email, role, merchant_id, password_hash, totp_secret, totp_last_step, failed_logins, locked_until,
    failed_proofs, proofs_locked_until, disabled_at, version, created_at, updated_at, last_login_at
from users_before;
drop table users_before;
create unique index users_by_email on users (email, merchant_id);
create unique index users_of_platform_by_email on users (email) where merchant_id is null;
create index users_by_merchant on users (merchant_id);
