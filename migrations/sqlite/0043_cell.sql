-- The cell that this database belongs to, written at the first start of a replica with [cell] id. Empty without cells.
create table cell (
    id     integer not null primary key check (id = 1),
    number integer not null
) strict;
