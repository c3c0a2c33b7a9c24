//! `tollgate merchant onboard`: makes all that a new merchant needs, and prints its first call. Each step is
//! printed when it is done, so that no secret is lost if a later step fails.

use clap::Args;
use serde_json::{Value, json};
use tollgate::domain::api_key::ApiKey;
use tollgate::domain::secret::StoredSecret;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::manage_merchants::NewMerchant;
use tollgate::flows::onboard::{NewAccount, Object, Step};
use tollgate::http::admin::api_keys::ApiKeyView;
use tollgate::http::admin::credentials::CredentialView;

use super::CommandLine;
use super::api_keys::EnvironmentName;
use super::find::only;
use super::output::{Output, print};
use super::users::link_to;

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
    /// Where the key's webhooks are sent.
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Everything is there, but nobody may have some of its secrets. The exit code is 3.
#[derive(Debug, thiserror::Error)]
#[error("the merchant has all that it needs, but an earlier run made secrets that were never used: {0}")]
pub(crate) struct SecretsLost(String);

pub(super) async fn run(line: &CommandLine, wanted: Onboarding) -> anyhow::Result<()> {
    let found = line.core.merchants_called(&line.principal, &wanted.name).await?;
    let existing = match found.is_empty() {
        true => None,
        false => Some(only(found, "merchant", &wanted.name, |merchant| merchant.id.to_string())?),
    };
    let Onboarding { name, gateway, admin, environment, key_name, allowed_ips, webhook_url, output } = wanted;
    let key = NewApiKey { allowed_ips, webhook_url, ..NewApiKey::named(key_name, environment.into()) };
    let new = NewAccount { existing, merchant: NewMerchant { name, gateway }, key, admin_email: admin };
    let mut report = Report { line, output, steps: Vec::new() };
    let ended = line.core.onboard(&line.principal, new, |step| report.tell(step)).await;
    report.end(ended).await
}

/// Prints each step as text when it is done, or all of them in one line of JSON at the end.
struct Report<'a> {
    line: &'a CommandLine,
    output: Output,
    steps: Vec<Step>,
}

impl Report<'_> {
    fn tell(&mut self, step: Step) -> anyhow::Result<()> {
        if !self.output.json {
            print(&self.rows(&step))?;
        }
        self.steps.push(step);
        Ok(())
    }

    fn rows(&self, step: &Step) -> String {
        let addresses = |key: &ApiKey| match key.allow_list.to_strings() {
            list if list.is_empty() => "any address".to_owned(),
            list => list.join(", "),
        };
        let (name, text, secret_name) = match &step.object {
            Object::Merchant(merchant) => ("merchant", format!("{}  {}", merchant.id, merchant.name), ""),
            Object::Licence(product) => ("licence", <&str>::from(*product).to_owned(), ""),
            Object::Key(key) => ("API key", format!("{}  {}", key.id, key.name), "X-API-KEY"),
            Object::Addresses(key) => ("addresses", addresses(key), ""),
            Object::Webhook(key) => {
                ("webhook", key.webhook_url.clone().unwrap_or_default(), "webhook secret")
            }
            Object::Client(client) => ("client_id", client.client_id.clone(), "client_secret"),
            Object::Switch(_) => ("switch", "Enhanced Security ON".to_owned(), ""),
            Object::User(user) => ("user", format!("{}  {}", user.id, user.email), "sign-in link"),
        };
        let did = if step.was_made { "made" } else { "already there" };
        let row = format!("{name:<14} {did:<13}  {text}");
        match self.secret_of(step) {
            Some(secret) => format!("{row}\n{secret_name:<14} {:<13}  {secret}", ""),
            None => row,
        }
    }

    fn secret_of(&self, step: &Step) -> Option<String> {
        let secret = step.secret.as_ref()?;
        Some(match step.object {
            Object::User(_) => link_to(self.line, secret),
            _ => secret.expose().to_owned(),
        })
    }

    /// Prints what remains to be said, also about a run that has failed.
    async fn end(&self, ended: anyhow::Result<()>) -> anyhow::Result<()> {
        let lost = self.lost();
        if self.output.json {
            print(&self.json(ended.is_ok(), &lost).await?.to_string())?;
        } else if ended.is_ok() {
            print(&self.closing())?;
        }
        ended?;
        if lost.is_empty() { Ok(()) } else { Err(SecretsLost(lost.join("; ")).into()) }
    }

    /// The commands that replace the secrets that were made earlier and never used.
    fn lost(&self) -> Vec<String> {
        let is_unused = |secrets: &[StoredSecret]| secrets.iter().all(|one| one.last_used_at.is_none());
        let rotation = |step: &Step| match &step.object {
            Object::Key(key) if is_unused(&key.secrets) => Some(format!("tollgate key rotate {}", key.id)),
            // No receiver can have verified anything yet.
            Object::Webhook(key) if is_unused(&key.secrets) => {
                Some(format!("tollgate key rotate-webhook-secret {}", key.id))
            }
            Object::Client(client) if is_unused(&client.secrets) => {
                Some(format!("tollgate credentials rotate {}", client.client_id))
            }
            _ => None,
        };
        self.steps.iter().filter(|step| !step.was_made).filter_map(rotation).collect()
    }

    fn closing(&self) -> String {
        let mut text = String::new();
        if self.steps.iter().all(|step| !step.was_made) {
            text += "\nThe merchant had all of it already, so nothing was made.\n";
        }
        let secret_kept = |step: &Step| step.secret.is_none() && !step.was_made;
        for step in self.steps.iter().filter(|step| secret_kept(step)) {
            text += &match &step.object {
                Object::Key(key) => format!(
                    "\nThe API key cannot be shown again. A new one: tollgate key rotate {}\n",
                    key.id
                ),
                Object::Webhook(key) => format!(
                    "\nThe webhook secret cannot be shown again. A new one: tollgate key rotate-webhook-secret {}\n",
                    key.id
                ),
                Object::Client(client) => format!(
                    "\nThe client secret cannot be shown again. A new one: tollgate credentials rotate {}\n",
                    client.client_id
                ),
                _ => String::new(),
            };
        }
        if self.steps.iter().any(|step| step.secret.is_some()) {
            text += "\nSecrets and links are shown this once. A link works once, within an hour.\n";
        }
        text + &self.first_call().unwrap_or_default()
    }

    /// The command for the first token, if this run has made both secrets.
    fn first_call(&self) -> Option<String> {
        let key = self.steps.iter().find_map(|step| match &step.object {
            Object::Key(_) => step.secret.as_ref(),
            _ => None,
        })?;
        let (client_id, secret) = self.steps.iter().find_map(|step| match &step.object {
            Object::Client(client) => Some((&client.client_id, step.secret.as_ref()?)),
            _ => None,
        })?;
        Some(format!(
            "\nThe first token:\n\n\
             curl '{}/api/authorize' \\\n\
             --header 'X-API-KEY: {}' \\\n\
             --data 'client_id={client_id}' --data 'client_secret={}'\n",
            self.line.core.issuer,
            key.expose(),
            secret.expose()
        ))
    }

    /// Each object as the admin API shows it, with its secret where it was made.
    async fn json(&self, is_complete: bool, lost: &[String]) -> anyhow::Result<Value> {
        let now = self.line.core.now();
        let mut answer = json!({ "created": false, "complete": is_complete, "lost": lost });
        let mut steps = Vec::new();
        for step in &self.steps {
            let secret = self.secret_of(step);
            let name = match &step.object {
                Object::Merchant(merchant) => {
                    answer["created"] = step.was_made.into();
                    // With its new licences. If the store has failed in the meantime, the secrets matter more.
                    let read = self.line.core.merchant(&self.line.principal, merchant.id).await;
                    answer["merchant"] = serde_json::to_value(read.as_ref().unwrap_or(merchant))?;
                    "merchant"
                }
                Object::Licence(product) => <&str>::from(*product),
                Object::Key(key) => {
                    answer["api_key"] = serde_json::to_value(ApiKeyView::new(key, now))?;
                    answer["api_key"]["key"] = secret.into();
                    "api_key"
                }
                Object::Addresses(key) => {
                    answer["api_key"]["allowed_ips"] = serde_json::to_value(&key.allow_list)?;
                    "allowed_ips"
                }
                Object::Webhook(key) => {
                    answer["api_key"]["webhook_url"] = key.webhook_url.clone().into();
                    answer["api_key"]["webhook_secret"] = secret.into();
                    "webhook"
                }
                Object::Client(client) => {
                    answer["credentials"] = serde_json::to_value(CredentialView::new(client, now))?;
                    answer["credentials"]["client_secret"] = secret.into();
                    "credentials"
                }
                Object::Switch(client) => {
                    answer["credentials"]["enabled"] = client.enabled.into();
                    "enhanced_security_on"
                }
                Object::User(user) => {
                    answer["user"] = serde_json::to_value(user)?;
                    answer["sign_in_link"] = secret.into();
                    "user"
                }
            };
            steps.push(json!({ "step": name, "made": step.was_made }));
        }
        answer["steps"] = steps.into();
        Ok(answer)
    }
}
