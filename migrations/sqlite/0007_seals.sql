-- Kept answers to creations are sealed by the caller's own key too, of which only the hash is here. Those
-- from before had it in clear, and a token key alone opened them: they go.
delete from idempotency_keys;

-- The head of the audit chain, sealed with a token key: nobody who only has the database can cut the end
-- off and set the head back. It stands beside the head, for the release before appends without sealing.
alter table audit_chain add column sealed_seq integer not null default 0;
alter table audit_chain add column sealed_hash blob not null
    default x'0000000000000000000000000000000000000000000000000000000000000000';
alter table audit_chain add column head_seal blob;
