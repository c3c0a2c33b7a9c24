-- The time that the processes on this file agree on, for SQLite has no clock but that of the process that asks.
create table clock (
    id integer not null primary key check (id = 1),
    at integer not null
) strict;

-- The first process to come may have a wrong clock, so a database in use begins with its latest event.
insert into clock (id, at) select 1, at from audit_events order by seq desc limit 1;
