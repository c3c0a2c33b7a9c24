-- SHA-256 of a webhook's secret as its owner sees it, to find one by that was reported as leaked. The secret is
-- 32 random bytes. Null where the release before wrote it; such rows are filled in when a leak is reported.
alter table webhook_secrets add column hash blob;
create unique index webhook_secrets_by_hash on webhook_secrets (hash);
create index webhook_secrets_without_hash on webhook_secrets (id) where hash is null;
