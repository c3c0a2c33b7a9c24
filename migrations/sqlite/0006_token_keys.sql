-- Which token keys there are, and who has them: a key signs once every running replica can verify with it,
-- and a replica that lacks a key which others signed with is told at its start. It only adds, so that the
-- release before can be gone back to.

create table token_keys (
    id            integer not null primary key, -- derived from the key, which is never here
    first_seen_at integer not null, -- some replica had it
    signs_since   integer, -- null: it has never signed
    lost_at       integer -- an operator said that nobody has it any more
) strict;
insert into token_keys (id, first_seen_at, signs_since)
select token_key_id, min(started_at), min(started_at) from sessions group by token_key_id;

create table replicas (
    id         blob    not null primary key,
    token_keys text    not null, -- JSON array of the ids of those it has
    signs_with integer not null,
    seen_at    integer not null -- by the database's clock
) strict;
