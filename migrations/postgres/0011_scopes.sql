-- What a key, a client and a session may do: scope names with one space between; null for everything.
alter table api_keys add column scopes text;
alter table credentials add column scopes text;
alter table sessions add column scopes text;
