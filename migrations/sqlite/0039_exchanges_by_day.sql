-- On PostgreSQL, API details have a table for each day from here on. SQLite has no partitions and goes on removing rows.
select 1;
