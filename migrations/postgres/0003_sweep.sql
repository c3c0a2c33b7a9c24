-- What the sweeper needs. A migration of its own, since 0001 and 0002 have been applied: sqlx refuses a
-- database whose migrations are not the ones it was made with. It only adds, with defaults for what must
-- be there, so replicas of the release before go on beside this schema. One thing to know: their
-- `tollgate audit verify` calls a trail broken that has been cut since.

-- What each client asked for in slots of five minutes, for the last hours: one that opens sessions
-- instead of refreshing them is seen here.
create table client_activity (
    credential_id uuid   not null,
    slot          bigint not null, -- when it began
    opened        bigint not null,
    refreshed     bigint not null,
    primary key (credential_id, slot)
) with (fillfactor = 50);
create index client_activity_by_age on client_activity (slot);

-- The foot of the hash chain, beside its head: the number and hash of the last event that was cut off by
-- age, sealed with the server key, so that nobody who only has the database can cut more.
alter table audit_chain add column cut_seq bigint not null default 0;
alter table audit_chain add column cut_hash bytea not null
    default '\x0000000000000000000000000000000000000000000000000000000000000000';
alter table audit_chain add column cut_seal bytea;

create index sign_in_links_by_expiry on sign_in_links (expires_at);
