//! The commands for operators. They work with or without a running server.
//!
//! They use the same flows as the admin API and, with `--json`, print the same answers.

mod arguments;
mod audit;
mod inspect;
mod token_keys;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;
use tollgate::app::{Create, open_core};
use tollgate::config::Settings;
use tollgate::domain::admin::{Permission, Role};
use tollgate::domain::clock::{Clock, Timestamp};
use tollgate::domain::entropy::Entropy;
use tollgate::domain::ids::{MerchantId, UserId};
use tollgate::domain::licence::Licence;
use tollgate::domain::secret::PlainSecret;
use tollgate::flows::Core;
use tollgate::flows::idempotency::{Answer, Rendered};
use tollgate::flows::manage_credentials::CredentialChanges;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::manage_tokens::NewAdminToken;
use tollgate::flows::manage_users::NewUser;
use tollgate::flows::principal::Principal;
use tollgate::http::admin::{api_keys, body, credentials};

pub(crate) use arguments::Job;
use arguments::{
    CredentialsJob, KeyJob, LicenceJob, MerchantJob, OperatorJob, ProductName, SessionJob, TokenJob, UserJob,
};

/// Runs a command and prints its result.
pub(crate) async fn run(settings: &Settings, job: Job) -> anyhow::Result<()> {
    let create = if job.only_looks() { Create::Nothing } else { Create::Beside };
    let core = open_core(settings, create, Clock::System, Entropy::System).await?;
    core.follow_token_key().await?;
    let done = perform(settings, &core, job).await;
    core.store.close().await;
    done
}

async fn perform(settings: &Settings, core: &Core, job: Job) -> anyhow::Result<()> {
    let principal = Principal::command_line();
    match job {
        Job::Operator(OperatorJob::Add { name, introspect, json }) => {
            add_operator(core, &principal, name, introspect, json).await
        }
        Job::Merchant(MerchantJob::Add { name, gateway, json }) => {
            let made = core.create_merchant(&principal, name, gateway).await?;
            show(&made_now(made)?.body(), json)
        }
        Job::Merchant(MerchantJob::List { listing }) => inspect::merchants(core, &principal, &listing).await,
        Job::Merchant(MerchantJob::Show { merchant, json }) => {
            show(&inspect::merchant(core, &principal, &merchant).await?.body(), json)
        }
        Job::Token(TokenJob::List { listing }) => inspect::tokens(core, &principal, &listing).await,
        Job::Token(TokenJob::Show { token, json }) => inspect::token(core, &principal, token, json).await,
        Job::Token(TokenJob::Revoke { token, json }) => {
            core.revoke_admin_token(&principal, token).await?;
            inspect::token(core, &principal, token, json).await
        }
        Job::Session(SessionJob::List { merchant, listing }) => {
            inspect::sessions(core, &principal, &merchant, &listing).await
        }
        Job::Session(SessionJob::Show { session, json }) => {
            inspect::session(core, &principal, session, json).await
        }
        Job::Session(SessionJob::End { session, json }) => {
            core.end_session_by(&principal, session).await?;
            inspect::session(core, &principal, session, json).await
        }
        Job::Key(KeyJob::List { merchant, listing }) => {
            inspect::keys(core, &principal, &merchant, &listing).await
        }
        Job::Key(KeyJob::Show { key, json }) => {
            let key = core.api_key(&principal, key).await?;
            show(&body::json_bytes(&api_keys::ApiKeyView::new(&key, core.now())), json)
        }
        Job::Key(KeyJob::Restore { key, json }) => {
            let key = core.restore_api_key(&principal, key).await?;
            show(&body::json_bytes(&api_keys::ApiKeyView::new(&key, core.now())), json)
        }
        Job::Credentials(CredentialsJob::List { key, listing }) => {
            inspect::credentials(core, &principal, key, &listing).await
        }
        Job::Credentials(CredentialsJob::Show { client_id, json }) => {
            let credential = core.credential(&principal, &client_id).await?;
            show(&body::json_bytes(&credentials::CredentialView::new(&credential, core.now())), json)
        }
        Job::Licence(LicenceJob::Grant { merchant, product, expires_at, json }) => {
            let expires_at = expires_at.map(|at| Timestamp::from_micros(at.timestamp_micros()));
            let licence = Licence { active: true, expires_at };
            put_licence(core, &principal, merchant, product, licence, json).await
        }
        Job::Licence(LicenceJob::End { merchant, product, json }) => {
            let licence = Licence { active: false, expires_at: None };
            put_licence(core, &principal, merchant, product, licence, json).await
        }
        Job::Key(KeyJob::Add { merchant, name, environment, allowed_ips, json }) => {
            let new = NewApiKey { allowed_ips, ..NewApiKey::named(name, environment.into()) };
            let made = core.create_api_key(&principal, merchant, new).await?;
            show(&made_now(made)?.body(), json)
        }
        Job::Key(KeyJob::Revoke { key, json }) => {
            let key = core.revoke_api_key(&principal, key).await?;
            show(&body::json_bytes(&api_keys::ApiKeyView::new(&key, core.now())), json)
        }
        Job::Credentials(CredentialsJob::Add { key, json }) => {
            let made = core.generate_credentials(&principal, key, None).await?;
            show(&made_now(made)?.body(), json)
        }
        Job::Credentials(CredentialsJob::On { client_id, json }) => {
            switch(core, &principal, &client_id, true, json).await
        }
        Job::Credentials(CredentialsJob::Off { client_id, json }) => {
            switch(core, &principal, &client_id, false, json).await
        }
        Job::User(job) => user(core, &principal, job).await,
        Job::Audit(job) => audit::run(core, &principal, job).await,
        Job::Keys(keys) => token_keys::run(settings, core, &principal, keys).await,
    }
}

async fn add_operator(
    core: &Core,
    principal: &Principal,
    name: String,
    introspect: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let (role, permissions) = match introspect {
        true => (Role::Service, vec![Permission::Introspect]),
        false => (Role::Operator, Vec::new()),
    };
    let allowed_ips = Vec::new();
    let new = NewAdminToken { name, role, merchant_id: None, permissions, allowed_ips, expires_at: None };
    let made = made_now(core.create_admin_token(principal, new).await?)?;
    if as_json {
        let line = serde_json::json!({ "id": made.object.id, "token": made.secret.expose() });
        return print(&line.to_string());
    }
    show(&made.body(), false)
}

async fn user(core: &Core, principal: &Principal, job: UserJob) -> anyhow::Result<()> {
    match job {
        UserJob::Add { email, role, merchant, password_file, json } => {
            let has_password = password_file.is_some();
            let password = match password_file {
                Some(path) => first_line(&path)?,
                // A random password that nobody knows. The user signs in with the link and sets their own.
                None => PlainSecret::console(&core.entropy),
            };
            let new = NewUser { email, role: role.into(), merchant_id: merchant, password };
            let made = made_now(core.create_user(principal, new).await?)?;
            let mut answer = serde_json::to_value(&made)?;
            if !has_password {
                answer["sign_in_link"] = sign_in_link(core, principal, made.id).await?.into();
            }
            show(&body::json_bytes(&answer), json)
        }
        UserJob::List { listing } => inspect::users(core, principal, &listing).await,
        UserJob::Show { email, merchant, json } => {
            let user = core.user_by_email(principal, &email, merchant).await?;
            show(&body::json_bytes(&user), json)
        }
        UserJob::Link { email, merchant, json } => {
            let user = core.user_by_email(principal, &email, merchant).await?;
            let link = sign_in_link(core, principal, user.id).await?;
            if json { print(&serde_json::json!({ "link": link }).to_string()) } else { print(&link) }
        }
    }
}

async fn sign_in_link(core: &Core, principal: &Principal, user: UserId) -> anyhow::Result<String> {
    let link = core.make_sign_in_link(principal, user).await?;
    Ok(format!("{}/console/once?token={}", core.issuer, link.expose()))
}

fn first_line(path: &Path) -> anyhow::Result<PlainSecret> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = zeroize::Zeroizing::new(text);
    let line = text.lines().next().with_context(|| format!("{}: empty", path.display()))?;
    Ok(PlainSecret::new(line.to_owned()))
}

async fn put_licence(
    core: &Core,
    principal: &Principal,
    merchant: MerchantId,
    product: ProductName,
    licence: Licence,
    as_json: bool,
) -> anyhow::Result<()> {
    let licence = core.put_licence(principal, merchant, product.into(), licence).await?;
    show(&body::json_bytes(&licence), as_json)
}

async fn switch(
    core: &Core,
    principal: &Principal,
    client_id: &str,
    on: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let credential =
        core.update_credentials(principal, client_id, None, CredentialChanges::switch(on)).await?;
    show(&body::json_bytes(&credentials::CredentialView::new(&credential, core.now())), as_json)
}

fn made_now<T>(answer: Answer<T>) -> anyhow::Result<T> {
    answer.made().context("it already exists")
}

/// Prints an answer of the admin API as one line of JSON, or as lines for people.
fn show(answer: &[u8], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return print(std::str::from_utf8(answer)?);
    }
    let Value::Object(fields) = serde_json::from_slice(answer)? else { bail!("not an object") };
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("{name:<20} {value}\n"));
    }
    if ["key", "client_secret", "token"].iter().any(|secret| fields.contains_key(*secret)) {
        text.push_str("\nThe secret is shown this once.\n");
    }
    print(&text)
}

/// Prints to standard output, with exactly one newline at the end.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.trim_end()).context("cannot write to standard output")
}
