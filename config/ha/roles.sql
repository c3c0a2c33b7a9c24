-- Makes the roles and the database. Run this once on the first primary:
--   psql -v tollgate_password=... -v replicator_password=... -f roles.sql

create role tollgate login password :'tollgate_password';
create database tollgate owner tollgate;

-- For replication from either node, and for pg_rewind, which reads files of the new primary.
create role replicator login replication password :'replicator_password';
grant execute on function pg_ls_dir(text, boolean, boolean) to replicator;
grant execute on function pg_stat_file(text, boolean) to replicator;
grant execute on function pg_read_binary_file(text) to replicator;
grant execute on function pg_read_binary_file(text, bigint, bigint, boolean) to replicator;

-- Every HAProxy uses this role twice a second to check whether the node is the primary.
create role proxy_check login connection limit 20;
