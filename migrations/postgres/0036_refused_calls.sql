-- API details by status or reason: few calls are refused, so this index is small, and finds them among all others.
create index exchanges_refused on exchanges (merchant_id, id) where status >= 400;
