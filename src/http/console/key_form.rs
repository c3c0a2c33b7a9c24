//! The form with the settings of a key, for a new key and for changes.

use askama::Template;
use chrono::NaiveDate;
use serde::Deserialize;

use super::context::MerchantContext;
use super::form::filled;
use super::page::{Page, Screen};
use crate::domain::api_key::{ApiKey, Environment, IpMode, MULTIPLE_JSON_GATEWAY, WebhookFormat};
use crate::domain::clock::Timestamp;
use crate::domain::scope::Scopes;
use crate::flows::manage_keys::{ApiKeyChanges, NewApiKey};

/// The fields as typed, or as shown.
#[derive(Deserialize)]
pub(super) struct KeyFields {
    #[serde(default)]
    pub(super) once: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) environment: String,
    /// Addresses or ranges, separated by line breaks, commas or spaces.
    #[serde(default)]
    pub(super) allowed_ips: String,
    #[serde(default)]
    pub(super) ip_mode: String,
    #[serde(default)]
    pub(super) webhook_format: String,
    #[serde(default, deserialize_with = "filled")]
    pub(super) webhook_url: Option<String>,
    /// Scopes, separated by white space. Empty means every scope.
    #[serde(default)]
    pub(super) scopes: String,
    /// The last day on which the key works.
    #[serde(default, deserialize_with = "filled")]
    pub(super) expires_on: Option<String>,
    /// The version that the form was filled from.
    #[serde(default)]
    pub(super) version: i64,
}

impl KeyFields {
    pub(super) fn fresh(once: String) -> Self {
        Self {
            once,
            name: String::new(),
            environment: <&str>::from(Environment::Sandbox).to_owned(),
            allowed_ips: String::new(),
            ip_mode: <&str>::from(IpMode::Enforce).to_owned(),
            webhook_format: <&str>::from(WebhookFormat::SingleJson).to_owned(),
            webhook_url: None,
            scopes: String::new(),
            expires_on: None,
            version: 0,
        }
    }

    pub(super) fn of(key: &ApiKey) -> Self {
        Self {
            once: String::new(),
            name: key.name.clone(),
            environment: <&str>::from(key.environment).to_owned(),
            allowed_ips: key.allow_list.to_strings().join("\n"),
            ip_mode: <&str>::from(key.ip_mode).to_owned(),
            webhook_format: <&str>::from(key.webhook_format).to_owned(),
            webhook_url: key.webhook_url.clone(),
            scopes: key.scopes.as_ref().map(Scopes::to_string).unwrap_or_default(),
            // The last day on which it works.
            expires_on: key.expires_at.map(|end| day_of(end.minus(chrono::TimeDelta::seconds(1)))),
            version: key.version,
        }
    }

    pub(super) fn to_new(&self) -> Result<NewApiKey, String> {
        Ok(NewApiKey {
            name: self.name.trim().to_owned(),
            environment: chosen("Environment", &self.environment)?,
            allowed_ips: entries(&self.allowed_ips),
            ip_mode: chosen("Outside the list", &self.ip_mode)?,
            webhook_format: chosen("Output type", &self.webhook_format)?,
            webhook_url: self.webhook_url.clone(),
            scopes: self.scopes(),
            expires_at: self.expires_at()?,
        })
    }

    pub(super) fn to_changes(&self, key: &ApiKey) -> Result<ApiKeyChanges, String> {
        let now = Self::of(key);
        Ok(ApiKeyChanges {
            name: Some(self.name.trim().to_owned()),
            allowed_ips: Some(entries(&self.allowed_ips)),
            ip_mode: Some(chosen("Outside the list", &self.ip_mode)?),
            webhook_format: Some(chosen("Output type", &self.webhook_format)?),
            // Leave out a URL that was not changed, because setting it would enable it again.
            webhook_url: (self.webhook_url != now.webhook_url).then(|| self.webhook_url.clone()),
            scopes: (self.scopes != now.scopes).then(|| self.scopes()),
            expires_at: match self.expires_on == now.expires_on {
                true => None,
                false => Some(self.expires_at()?),
            },
        })
    }

    fn scopes(&self) -> Option<Vec<String>> {
        let names: Vec<_> = self.scopes.split_whitespace().map(str::to_owned).collect();
        (!names.is_empty()).then_some(names)
    }

    /// The end of the given day in UTC.
    fn expires_at(&self) -> Result<Option<Timestamp>, String> {
        self.expires_on.as_deref().map(end_of_day).transpose()
    }
}

fn entries(text: &str) -> Vec<String> {
    text.split(|c: char| c.is_whitespace() || c == ',' || c == ';')
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The end of a day in UTC, from the text of a date field.
pub(super) fn end_of_day(text: &str) -> Result<Timestamp, String> {
    let day: NaiveDate = text.parse().map_err(|_| "Expiry: not a date.".to_owned())?;
    let next = day.succ_opt().and_then(|next| next.and_hms_opt(0, 0, 0));
    next.map(|next| Timestamp::from_unix_secs(next.and_utc().timestamp()))
        .ok_or_else(|| "Expiry: too far away.".to_owned())
}

/// `2026-11-23`.
pub(super) fn day_of(time: Timestamp) -> String {
    time.to_published()[..10].to_owned()
}

pub(super) fn chosen<T: std::str::FromStr>(label: &str, name: &str) -> Result<T, String> {
    name.parse().map_err(|_| format!("{label}: choose one."))
}

#[derive(Template)]
#[template(path = "key_form.html")]
pub(super) struct KeyFormPage {
    page: Page,
    fields: KeyFields,
    error: Option<String>,
    action: String,
    back: String,
    is_new: bool,
    may_have_multiple: bool,
    gateway: String,
    known_scopes: Vec<String>,
    /// Shown once, after the first webhook URL was set.
    webhook_secret: Option<String>,
    /// Set for an existing key.
    manage: Option<super::key::Manage>,
}

impl KeyFormPage {
    pub(super) fn new(context: &MerchantContext, fields: KeyFields, error: Option<String>) -> Self {
        Self {
            page: context.page("Generate API key", Screen::ApiKeys),
            action: context.path("/api-keys"),
            is_new: true,
            manage: None,
            ..Self::base(context, fields, error)
        }
    }

    pub(super) fn change(
        context: &MerchantContext,
        key: &ApiKey,
        fields: KeyFields,
        error: Option<String>,
    ) -> Self {
        Self {
            action: context.path(&format!("/api-keys/{}", key.id)),
            manage: Some(super::key::Manage::new(context, key)),
            ..Self::base(context, fields, error)
        }
    }

    pub(super) fn with_webhook_secret(mut self, secret: &str) -> Self {
        self.webhook_secret = Some(secret.to_owned());
        self
    }

    fn base(context: &MerchantContext, fields: KeyFields, error: Option<String>) -> Self {
        let gateway = &context.merchant.merchant.gateway;
        Self {
            page: context.page("API key settings", Screen::ApiKeys),
            fields,
            error,
            action: String::new(),
            back: context.path("/api-keys"),
            is_new: false,
            may_have_multiple: gateway == MULTIPLE_JSON_GATEWAY,
            gateway: gateway.clone(),
            known_scopes: context.context.core().known_scopes.clone(),
            webhook_secret: None,
            manage: None,
        }
    }
}
