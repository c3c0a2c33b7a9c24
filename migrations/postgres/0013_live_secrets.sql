-- The secrets of a merchant that work, without a look at all that have ended.
create index secrets_by_merchant_and_end on secrets (merchant_id, ends_at);
drop index secrets_by_merchant;
