-- API details have a table for each day (UTC), by the time that their ids begin with. Old ones go by dropping a table,
-- which takes no longer for a hundred million rows than for one. No statement changes.
--
-- The rows that are there stay in the table that they are in: it becomes the first partition, of everything up to
-- the day after tomorrow. It is read once to see that this is true. config/upgrading.md says how to read it beforehand.

alter table exchanges rename to exchanges_earlier;
alter table exchanges_earlier rename constraint exchanges_pkey to exchanges_earlier_pkey;
create table exchanges (like exchanges_earlier including defaults including indexes) partition by range (id);

-- What belongs to no other day, from a clock that is wrong. So no record is ever refused.
create table exchanges_other (like exchanges including defaults including indexes);
alter table exchanges attach partition exchanges_other default;

-- The smallest id of this time, in microseconds since 1970.
create function exchange_id_at(at bigint) returns uuid language sql immutable
as $$ select rpad(lpad(to_hex(at / 1000), 12, '0'), 32, '0')::uuid $$;

-- The partitions. `starts` and `ends` are null for those without an end, and both for the default one.
create view exchange_days as
select c.oid::regclass as name, c.reltuples::bigint as about,
    substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \(''([0-9a-f-]{36})''\)')::uuid as starts,
    substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''([0-9a-f-]{36})''\)')::uuid as ends
from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'exchanges'::regclass;

-- Makes the partitions of some days, the first of which begins at this time, unless they are there. Returns how many. It runs as
-- the owner of the tables, because the role of the servers need not be the owner.
create function make_exchange_days(first bigint, days bigint) returns bigint
language plpgsql security definer set lock_timeout = '1s' as $$
declare
    made bigint := 0;
    starts_at bigint;
    first_id uuid;
    end_id uuid;
    day text;
begin
    if not has_table_privilege(session_user, 'exchanges', 'insert') then
        raise insufficient_privilege using message = 'permission denied for table exchanges';
    end if;
    for number in 0 .. days - 1 loop
        starts_at := first + number * 86400000000;
        first_id := exchange_id_at(starts_at);
        end_id := exchange_id_at(starts_at + 86400000000);
        if exists (select from exchange_days where coalesce(starts, ends) is not null
            and (starts is null or starts <= first_id) and (ends is null or end_id <= ends)) then
            continue;
        end if;
        day := 'exchanges_' || to_char(to_timestamp(starts_at / 1e6) at time zone 'UTC', 'YYYYMMDD');
        -- Rows of this day that came before its table move into it. Reads and writes of other days go on.
        lock table exchanges_other in access exclusive mode;
        execute format('create table %I (like exchanges including defaults including indexes)', day);
        execute format('with moved as (delete from exchanges_other where id >= %L and id < %L returning *) '
            'insert into %I select * from moved', first_id, end_id, day);
        execute format('alter table exchanges attach partition %I for values from (%L) to (%L)', day, first_id, end_id);
        made := made + 1;
    end loop;
    return made;
end $$;

-- Drops the first partition whose ids are all smaller than this one. Returns how many rows it had, about, or null if
-- there is none.
create function drop_exchange_day(until uuid) returns bigint
language plpgsql security definer set lock_timeout = '1s' as $$
declare
    old record;
begin
    if not has_table_privilege(session_user, 'exchanges', 'delete') then
        raise insufficient_privilege using message = 'permission denied for table exchanges';
    end if;
    select name, greatest(about, 0) as about into old from exchange_days where ends <= until order by ends limit 1;
    if old.name is null then
        return null;
    end if;
    -- The statistics do not know a small table yet.
    if pg_relation_size(old.name) < 1048576 then
        execute format('select count(*) from %s', old.name) into old.about;
    end if;
    execute format('drop table %s', old.name);
    return old.about;
end $$;

-- The functions look only where the owner's tables are, and last of all among a caller's temporary tables.
do $$
begin
    execute format('alter function make_exchange_days(bigint, bigint) set search_path = %I, pg_temp', current_schema());
    execute format('alter function drop_exchange_day(uuid) set search_path = %I, pg_temp', current_schema());
end $$;

-- Other roles may do what they could before.
do $$
declare
    given record;
begin
    for given in
        select privilege_type, case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as role
        from pg_class c, aclexplode(c.relacl) where c.oid = 'exchanges_earlier'::regclass and grantee <> c.relowner
    loop
        execute format('grant %s on exchanges to %s', given.privilege_type, given.role);
    end loop;
end $$;

do $$
declare
    midnight bigint := extract(epoch from date_trunc('day', now() at time zone 'UTC'))::bigint * 1000000;
    ends uuid := exchange_id_at(midnight + 2 * 86400000000);
begin
    if exists (select from exchanges_earlier) then
        begin
            execute format('alter table exchanges attach partition exchanges_earlier for values from (minvalue) to (%L)', ends);
        exception when check_violation then
            -- Of a clock that was days ahead.
            with ahead as (delete from exchanges_earlier where id >= ends returning *)
            insert into exchanges_other select * from ahead;
            execute format('alter table exchanges attach partition exchanges_earlier for values from (minvalue) to (%L)', ends);
        end;
        -- config/upgrading.md has it. It would refuse the records of the last day if it was made before today.
        alter table exchanges_earlier drop constraint if exists checked;
    else
        drop table exchanges_earlier;
    end if;
    perform make_exchange_days(midnight, 8);
end $$;
