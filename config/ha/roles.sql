-- The roles and the database, made once on the first primary:
--   psql -v tollgate_password=... -v replicator_password=... -f roles.sql

create role tollgate login password :'tollgate_password';
create database tollgate owner tollgate;

-- Streams from either node, and lets pg_rewind read the files of the one that took over.
create role replicator login replication password :'replicator_password';
grant execute on function pg_ls_dir(text, boolean, boolean) to replicator;
grant execute on function pg_stat_file(text, boolean) to replicator;
grant execute on function pg_read_binary_file(text) to replicator;
grant execute on function pg_read_binary_file(text, bigint, bigint, boolean) to replicator;

-- Asked by every HAProxy, twice a second, whether the node is the primary.
create role proxy_check login connection limit 20;
