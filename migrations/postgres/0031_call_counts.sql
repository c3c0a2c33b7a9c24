-- Calls counted in slots of an hour and of two minutes, in the transaction that records them, for the overview.
create table call_counts (
    merchant_id   uuid   not null,
    slot_secs     bigint not null, -- 3600 or 120
    slot          bigint not null, -- when it began
    kind          text   not null, -- issued, refreshed or other
    reason        text   not null, -- '' for none
    good          bigint not null, -- 1: a status below 400
    latency_class bigint not null, -- four to an octave of microseconds; -1: not known
    calls         bigint not null,
    primary key (merchant_id, slot_secs, slot, kind, reason, good, latency_class)
);
create index call_counts_by_slot on call_counts (slot_secs, slot);

insert into call_counts (merchant_id, slot_secs, slot, kind, reason, good, latency_class, calls)
select merchant_id, 3600, at / 3600000000 * 3600000000,
    case path when '/api/authorize' then 'issued' when '/api/refresh_token' then 'refreshed' else 'other' end,
    coalesce(reason, ''), case when status < 400 then 1 else 0 end, -1, count(*)
from exchanges group by 1, 3, 4, 5, 6;
