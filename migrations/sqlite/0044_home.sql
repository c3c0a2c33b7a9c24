-- The cell that serves a merchant: null until the merchant is moved to another cell for the first time, and -1 while none does.
alter table merchants add column home integer;
-- For a move, which finds rows by their merchant. Null where the release before wrote the row; a move fills those in.
alter table webhook_secrets add column merchant_id blob;
alter table recovery_codes add column merchant_id blob;
