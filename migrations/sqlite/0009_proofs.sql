-- Attempts of somebody who has passed the first step of a sign-in, or is signed in: codes of the second factor, and
-- the current password. Counted apart from passwords at the door, which anybody may try: whoever locks an account
-- there must not lock out the user who comes by a link.
alter table users add column failed_proofs integer not null default 0;
alter table users add column proofs_locked_until integer;
