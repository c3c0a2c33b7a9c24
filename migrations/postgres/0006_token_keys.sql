-- Which token keys there are, and who has them: a key signs once every running replica can verify with it,
-- and a replica that lacks a key which others signed with is told at its start. It only adds, so that the
-- release before can be gone back to.

create table token_keys (
    id            bigint not null primary key, -- derived from the key, which is never here
    first_seen_at bigint not null, -- some replica had it
    signs_since   bigint, -- null: it has never signed
    lost_at       bigint -- an operator said that nobody has it any more
);
insert into token_keys (id, first_seen_at, signs_since)
select token_key_id, min(started_at), min(started_at) from sessions group by token_key_id;

create table replicas (
    id         uuid   not null primary key,
    token_keys text    not null, -- JSON array of the ids of those it has
    signs_with bigint not null,
    seen_at    bigint not null -- by the database's clock
);
