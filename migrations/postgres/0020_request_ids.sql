-- A call whose caller chose no request id is named by the id of its record. From here on that is written once:
-- request_id is empty then, and the index has those alone that callers chose. Earlier rows stay as they are.
drop index exchanges_by_request_id;
create index exchanges_by_request_id on exchanges (merchant_id, request_id) where request_id <> '';
