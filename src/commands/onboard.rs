//! `tollgate merchant onboard`: makes all that a new merchant needs, and prints its first call.

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tollgate::domain::admin::User;
use tollgate::domain::api_key::ApiKey;
use tollgate::domain::credential::Credential;
use tollgate::domain::merchant::Merchant;
use tollgate::flows::idempotency::Rendered;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::manage_merchants::NewMerchant;
use tollgate::flows::onboard::{Account, NewAccount};
use tollgate::flows::principal::Principal;
use tollgate::http::admin::api_keys::ApiKeyView;
use tollgate::http::admin::credentials::CredentialView;

use super::CommandLine;
use super::api_keys::EnvironmentName;
use super::find::only;
use super::output::{Output, print};
use super::users::link_to;

/// More keys or users than a new merchant has.
const SHOWN_MAX: i64 = 200;

#[derive(Args, Clone)]
pub(crate) struct Onboarding {
    /// The name of the merchant.
    name: String,
    /// `worldpay_corporate` allows the second webhook format.
    #[arg(long, default_value = "default")]
    gateway: String,
    /// The e-mail address of the merchant's first admin, who gets a one-time sign-in link.
    #[arg(long, value_name = "EMAIL")]
    admin: Option<String>,
    #[arg(long, value_enum, default_value_t = EnvironmentName::Sandbox)]
    environment: EnvironmentName,
    /// The name of the API key.
    #[arg(long, default_value = "Default")]
    key_name: String,
    /// An address or CIDR range that the key may be used from. Can be given several times.
    #[arg(long = "allow", value_name = "CIDR")]
    allowed_ips: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(line: &CommandLine, wanted: Onboarding) -> anyhow::Result<()> {
    let existing = line.core.merchants_called(&line.principal, &wanted.name).await?;
    if !existing.is_empty() {
        let merchant = only(existing, "merchant", &wanted.name, |merchant| merchant.id.to_string())?;
        return show_existing(line, &merchant, wanted.output).await;
    }
    let Onboarding { name, gateway, admin, environment, key_name, allowed_ips, output } = wanted;
    let key = NewApiKey { allowed_ips, ..NewApiKey::named(key_name, environment.into()) };
    let new = NewAccount { merchant: NewMerchant { name, gateway }, key, admin_email: admin };
    let account = line.core.onboard(&line.principal, new).await?;
    let link = account.admin.as_ref().map(|(_, secret)| link_to(line, secret));
    if !output.json {
        return print(&account_text(&account, link.as_deref(), &line.core.issuer));
    }
    let answer = json!({
        "created": true,
        "merchant": account.merchant,
        "api_key": parsed(&account.key)?,
        "credentials": parsed(&account.client)?,
        "user": account.admin.as_ref().map(|(user, _)| user),
        "sign_in_link": link,
    });
    print(&answer.to_string())
}

fn parsed(object: &impl Rendered) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&object.body())?)
}

fn account_text(account: &Account, link: Option<&str>, issuer: &str) -> String {
    let Account { merchant, key, client, admin } = account;
    let (secret, client_secret) = (key.secret.expose(), client.secret.expose());
    let client_id = &client.object.client_id;
    let mut text = format!(
        "The merchant has all that it needs.\n\n{}{}{}{}{}{}",
        row("merchant", format!("{}  {}", merchant.id, merchant.name)),
        row("licences", "api_keys, enhanced_security"),
        row("API key", format!("{}  {}", key.object.id, key.object.name)),
        row("X-API-KEY", secret),
        row("client_id", format!("{client_id}  Enhanced Security ON")),
        row("client_secret", client_secret),
    );
    if let (Some((user, _)), Some(link)) = (admin, link) {
        text += &row("user", format!("{}  {}", user.id, user.email));
        text += &row("sign-in link", link);
    }
    text += &format!(
        "\nThe key, the secret and the link are shown this once. The link works once, within an hour.\n\
         The first token:\n\n\
         curl '{issuer}/api/authorize' \\\n\
         --header 'X-API-KEY: {secret}' \\\n\
         --data 'client_id={client_id}' --data 'client_secret={client_secret}'\n"
    );
    text
}

fn row(name: &str, value: impl AsRef<str>) -> String {
    format!("{name:<14} {}\n", value.as_ref())
}

/// What a merchant has that was onboarded before.
#[derive(Serialize)]
struct Existing<'a> {
    created: bool,
    merchant: &'a Merchant,
    api_keys: Vec<ApiKeyView<&'a ApiKey>>,
    credentials: Vec<CredentialView<&'a Credential>>,
    users: &'a [User],
}

async fn show_existing(line: &CommandLine, merchant: &Merchant, output: Output) -> anyhow::Result<()> {
    let CommandLine { core, principal } = line;
    let keys = core.api_keys(principal, merchant.id, None, SHOWN_MAX).await?;
    let mut credentials = Vec::new();
    for key in &keys {
        credentials.extend(core.credentials(principal, key.id).await?);
    }
    let of_merchant = Principal { merchant_id: Some(merchant.id), ..principal.clone() };
    let users = core.users(&of_merchant, None, SHOWN_MAX).await?;
    if !output.json {
        return print(&existing_text(merchant, &keys, &credentials, &users));
    }
    let now = core.now();
    let existing = Existing {
        created: false,
        merchant,
        api_keys: keys.iter().map(|key| ApiKeyView::new(key, now)).collect(),
        credentials: credentials.iter().map(|one| CredentialView::new(one, now)).collect(),
        users: &users,
    };
    print(&serde_json::to_string(&existing)?)
}

fn existing_text(merchant: &Merchant, keys: &[ApiKey], credentials: &[Credential], users: &[User]) -> String {
    let licences = [
        ("api_keys", merchant.licences.api_keys),
        ("enhanced_security", merchant.licences.enhanced_security),
    ];
    let active = licences.iter().filter(|(_, licence)| licence.is_some_and(|licence| licence.active));
    let active: Vec<_> = active.map(|(name, _)| *name).collect();
    let mut text = format!(
        "There is a merchant with this name already, so nothing was made. It has:\n\n{}{}",
        row("merchant", format!("{}  {}", merchant.id, merchant.name)),
        row("licences", if active.is_empty() { "none".to_owned() } else { active.join(", ") }),
    );
    for key in keys {
        let revoked = if key.revoked_at.is_some() { "  revoked" } else { "" };
        text += &row("API key", format!("{}  {}{revoked}", key.id, key.name));
    }
    for one in credentials {
        let switch = if one.enabled { "ON" } else { "OFF" };
        text += &row("client_id", format!("{}  Enhanced Security {switch}", one.client_id));
    }
    for user in users {
        text += &row("user", format!("{}  {}", user.id, user.email));
    }
    text
}
