-- Calls counted in slots of an hour and of two minutes, in the transaction that records them, for the overview.
create table call_counts (
    merchant_id   blob    not null,
    slot_secs     integer not null, -- 3600 or 120
    slot          integer not null, -- when it began
    kind          text    not null, -- issued, refreshed or other
    reason        text    not null, -- '' for none
    good          integer not null, -- 1: a status below 400
    latency_class integer not null, -- four to an octave of microseconds; -1: not known
    calls         integer not null,
    primary key (merchant_id, slot_secs, slot, kind, reason, good, latency_class)
) strict, without rowid;
create index call_counts_by_slot on call_counts (slot_secs, slot);

insert into call_counts (merchant_id, slot_secs, slot, kind, reason, good, latency_class, calls)
select merchant_id, 3600, at / 3600000000 * 3600000000,
    case path when '/api/authorize' then 'issued' when '/api/refresh_token' then 'refreshed' else 'other' end,
    coalesce(reason, ''), status < 400, -1, count(*)
from exchanges group by 1, 3, 4, 5, 6;
