-- When the audit trail first said that a token may more than it is used for.
alter table admin_tokens add column narrow_told_at integer;
-- Whether a token changed anything lately.
create index audit_events_by_token on audit_events (actor_id, at) where actor_kind = 'admin_token';
