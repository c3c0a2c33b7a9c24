-- An e-mail address has one user at each merchant and one at the platform, instead of one in all: else whoever makes a
-- user learns where else the address has one. All passwords of one address have the same salt.
alter table users drop constraint users_email_key;
create unique index users_by_email on users (email, merchant_id);
create unique index users_of_platform_by_email on users (email) where merchant_id is null;
-- Whether this password was right once: then it counts no longer as a guess at the address's other users.
alter table users add column password_was_right boolean not null default false;
