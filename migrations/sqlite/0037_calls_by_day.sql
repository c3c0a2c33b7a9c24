-- Calls counted in slots of a day too, for the figures of a month.
insert into call_counts (merchant_id, slot_secs, slot, kind, reason, good, latency_class, calls)
select merchant_id, 86400, slot / 86400000000 * 86400000000, kind, reason, good, latency_class, sum(calls)
from call_counts where slot_secs = 3600 group by 1, 3, 4, 5, 6, 7;
