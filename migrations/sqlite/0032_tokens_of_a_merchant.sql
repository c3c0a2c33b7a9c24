-- The list of a merchant's admin tokens, newest first, and their number.
create index admin_tokens_by_merchant on admin_tokens (merchant_id, id);
