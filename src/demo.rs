//! `tollgate demo`, for a first look. In an empty store it makes a licensed merchant with an API key and
//! credentials that are switched ON, and prints commands to paste.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::domain::address::{ClientAddress, reachable};
use crate::domain::admin::Role;
use crate::domain::api_key::Environment;
use crate::domain::reason::Reason;
use crate::domain::secret::PlainSecret;
use crate::flows::Core;
use crate::flows::authorize::PresentedClient;
use crate::flows::error::{Error, Refused};
use crate::flows::manage_keys::NewApiKey;
use crate::flows::manage_merchants::NewMerchant;
use crate::flows::manage_users::NewUser;
use crate::flows::onboard::{NewAccount, Object, Step};
use crate::flows::principal::Principal;
use crate::store::{StoreError, api_keys, credentials, merchants};

const MERCHANT_NAME: &str = "Demo merchant";

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NotMade(#[from] Error<Refused>),
    #[error("it already exists")]
    MadeBefore,
    #[error("the key just made was not admitted: {0}")]
    NotAdmitted(#[from] Error<Reason>),
}

/// The user of the demo's console: an operator, who can see everything.
const USER_EMAIL: &str = "demo@tollgate.example";

/// Sets up the demo, or lists what an earlier run has made. Returns the text to print.
pub async fn prepare(core: &Core, listen: SocketAddr) -> Result<String, DemoError> {
    let base = format!("http://{}", reachable(listen));
    if let Some(summary) = what_is_there(core).await? {
        let console = console_text(core, &base).await?;
        return Ok(summary_text(&summary, &console, &base));
    }
    let principal = Principal::command_line();
    let new = NewAccount {
        existing: None,
        merchant: NewMerchant { name: MERCHANT_NAME.to_owned(), gateway: "demo_gateway".to_owned() },
        key: NewApiKey::named("Demo key", Environment::Sandbox),
        admin_email: None,
    };
    let (mut key, mut client) = (None, None);
    let note = |step: Step| {
        match step.object {
            Object::Key(_) => key = step.secret,
            Object::Client(made) => client = step.secret.map(|secret| (made.client_id, secret)),
            _ => {}
        }
        Ok::<(), DemoError>(())
    };
    core.onboard(&principal, new, note).await?;
    let key = key.ok_or(DemoError::MadeBefore)?;
    let (client_id, client_secret) = client.ok_or(DemoError::MadeBefore)?;

    let home = ClientAddress::direct(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut caller = core.recognise(key.expose().as_bytes(), home).await?;
    let presented = PresentedClient::new(client_id.clone(), &client_secret);
    let pair = core.authorize(&mut caller, &presented, None).await?.pair;
    Ok(commands_text(&Printed {
        base: &base,
        console: &console_text(core, &base).await?,
        key: &key,
        client_id: &client_id,
        client_secret: &client_secret,
        refresh_token: &pair.refresh,
    }))
}

/// The console's address and a one-time link for the demo's user.
async fn console_text(core: &Core, base: &str) -> Result<String, DemoError> {
    let principal = Principal::command_line();
    let found = core.users_by_email(&principal, USER_EMAIL).await?;
    let user = match found.into_iter().find(|user| user.merchant_id.is_none()) {
        Some(user) => user,
        None => {
            let new = NewUser {
                email: USER_EMAIL.to_owned(),
                role: Role::Operator,
                merchant_id: None,
                // A random password that nobody knows. The user signs in with the link.
                password: PlainSecret::console(&core.entropy),
            };
            core.create_user(&principal, new).await?.made().ok_or(DemoError::MadeBefore)?
        }
    };
    let link = core.make_sign_in_link(&principal, user.id).await?;
    Ok(format!(
        "  Console        {base}/console\n  sign in once   {base}/console/once?token={}\n",
        link.expose()
    ))
}

struct Printed<'a> {
    base: &'a str,
    console: &'a str,
    key: &'a PlainSecret,
    client_id: &'a str,
    client_secret: &'a PlainSecret,
    refresh_token: &'a PlainSecret,
}

fn commands_text(printed: &Printed<'_>) -> String {
    let Printed { base, console, client_id, .. } = printed;
    let (key, secret) = (printed.key.expose(), printed.client_secret.expose());
    let refresh_token = printed.refresh_token.expose();
    format!(
        r#"
Tollgate demo on {base}

A merchant with both licences, an API key, and client credentials with Enhanced Security ON.
Each secret is printed this once; the store keeps only hashes.

  X-API-KEY      {key}
  client_id      {client_id}
  client_secret  {secret}
  refresh_token  {refresh_token}

The web console, as an operator. The link works once, within an hour:

{console}
1. A form post, as integrators send it: renews the session of that refresh token.
   Paste it again within a minute: the very same pair, so a lost answer locks nobody out.

curl --location '{base}/api/authorize' \
--header 'X-API-KEY: {key}' \
--header 'Cookie: ci_session=19johr4r63q758b60cigskiqvj4qtkeu' \
--form 'client_id="{client_id}"' \
--form 'client_secret="{secret}"' \
--form 'refresh_token="{refresh_token}"'

2. Raw JSON, without a refresh token: starts a session of its own.

curl '{base}/api/authorize' \
--header 'X-API-KEY: {key}' \
--data-raw '{{"client_id":"{client_id}","client_secret":"{secret}"}}'

3. Use a token, as the platform's services do: put in an access_token from an answer above.
   200 means that key and token are good; the headers say whose they are.

curl --include '{base}/api/verify' \
--header 'X-API-KEY: {key}' \
--header 'ACCESS-TOKEN: PASTE_ONE_HERE'

4. Refresh: put in a refresh_token from an answer above.

curl '{base}/api/refresh_token' \
--header 'X-API-KEY: {key}' \
--data 'client_id={client_id}' --data 'client_secret={secret}' \
--data-urlencode 'refresh_token=PASTE_ONE_HERE'

What to try next
  - Read {base}/docs: code that keeps a token fresh, every error, and the whole API.
  - Refresh twice, then present the first token again: it was replayed, and its session ends.
  - Change a character of the key, the secret or a token, and compare the answers.
  - Stop with Ctrl-C, start again: what was issued still works.
"#
    )
}

/// Describes the merchants, keys and credentials in the store. `None` if the store is empty.
async fn what_is_there(core: &Core) -> Result<Option<String>, StoreError> {
    let mut db = core.store.read().await?;
    let merchants = merchants::list(&mut db, None, 10).await?;
    if merchants.is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    for merchant in merchants {
        line(&mut text, &format!("merchant {} `{}`", merchant.id, merchant.name));
        for key in api_keys::list(&mut db, merchant.id, None, 10).await? {
            let hint = key.secrets.first().map_or("", |secret| secret.hint.as_str());
            line(&mut text, &format!("  API key {} `{}`, ends in {hint}", key.id, key.name));
            for credential in credentials::of_api_key(&mut db, key.id).await? {
                let switch = if credential.enabled { "ON" } else { "OFF" };
                line(
                    &mut text,
                    &format!("    client_id {}, Enhanced Security {switch}", credential.client_id),
                );
            }
        }
    }
    Ok(Some(text))
}

fn line(text: &mut String, words: &str) {
    writeln!(text, "  {words}").expect("a String takes any text");
}

fn summary_text(summary: &str, console: &str, base: &str) -> String {
    format!(
        r"
Tollgate demo on {base}

The store is not empty, so the demo has made nothing. The store has:

{summary}
The web console, as an operator. The link works once, within an hour:

{console}
The secrets were printed when they were made and cannot be shown again: the store has only hashes.
For a fresh demo start with an empty store: tollgate demo --data-dir ANOTHER_DIRECTORY
"
    )
}
