-- The time that the processes on a SQLite file agree on, for SQLite has no clock but that of the process that asks.
-- PostgreSQL has a clock and leaves the table empty.
create table clock (
    id bigint primary key check (id = 1),
    at bigint not null
);
