//! The form with the settings of a key, for a new key and for changes.

use askama::Template;
use chrono::NaiveDate;
use serde::Deserialize;

use super::context::MerchantContext;
use super::form::filled;
use super::mistakes::Mistakes;
use super::page::{Page, Screen};
use super::scopes::{Picker, ScopeFields, is_change};
use crate::domain::api_key::{ApiKey, Environment, IpMode, MULTIPLE_JSON_GATEWAY, WebhookFormat};
use crate::domain::clock::Timestamp;
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
    #[serde(flatten)]
    pub(super) scopes: ScopeFields,
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
            scopes: ScopeFields::of(None),
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
            scopes: ScopeFields::of(key.scopes.as_ref()),
            // The last day on which it works.
            expires_on: key.expires_at.map(|end| day_of(end.minus(chrono::TimeDelta::seconds(1)))),
            version: key.version,
        }
    }

    pub(super) fn to_new(&self) -> Result<NewApiKey, Mistakes> {
        let mut wrong = Mistakes::default();
        let environment = wrong.take("environment", chosen("Environment", &self.environment));
        let ip_mode = wrong.take("ip_mode", chosen("Outside the list", &self.ip_mode));
        let webhook_format = wrong.take("webhook_format", chosen("Output type", &self.webhook_format));
        let scopes = wrong.take("scopes", self.scopes.wanted());
        let expires_at = wrong.take("expires_on", self.expires_at());
        match (environment, ip_mode, webhook_format, scopes, expires_at) {
            (Some(environment), Some(ip_mode), Some(webhook_format), Some(scopes), Some(expires_at)) => {
                Ok(NewApiKey {
                    name: self.name.trim().to_owned(),
                    environment,
                    allowed_ips: entries(&self.allowed_ips),
                    ip_mode,
                    webhook_format,
                    webhook_url: self.webhook_url.clone(),
                    scopes,
                    expires_at,
                })
            }
            _ => Err(wrong),
        }
    }

    pub(super) fn to_changes(&self, key: &ApiKey) -> Result<ApiKeyChanges, Mistakes> {
        let now = Self::of(key);
        let mut wrong = Mistakes::default();
        let ip_mode = wrong.take("ip_mode", chosen("Outside the list", &self.ip_mode));
        let webhook_format = wrong.take("webhook_format", chosen("Output type", &self.webhook_format));
        let scopes = wrong.take("scopes", self.scopes.wanted());
        let expires_at = wrong.take("expires_on", self.expires_at());
        match (ip_mode, webhook_format, scopes, expires_at) {
            (Some(ip_mode), Some(webhook_format), Some(scopes), Some(expires_at)) => Ok(ApiKeyChanges {
                name: Some(self.name.trim().to_owned()),
                allowed_ips: Some(entries(&self.allowed_ips)),
                ip_mode: Some(ip_mode),
                webhook_format: Some(webhook_format),
                // Only set what was changed: setting the URL again would enable it again.
                webhook_url: (self.webhook_url != now.webhook_url).then(|| self.webhook_url.clone()),
                scopes: is_change(scopes.as_ref(), key.scopes.as_ref()).then_some(scopes),
                expires_at: (self.expires_on != now.expires_on).then_some(expires_at),
            }),
            _ => Err(wrong),
        }
    }

    /// The same fields, hidden, for the page that asks before scopes are taken away.
    pub(super) fn hidden(&self) -> Vec<(&'static str, String)> {
        let mut hidden = self.scopes.hidden();
        hidden.extend([
            ("name", self.name.clone()),
            ("allowed_ips", self.allowed_ips.clone()),
            ("ip_mode", self.ip_mode.clone()),
            ("webhook_format", self.webhook_format.clone()),
            ("webhook_url", self.webhook_url.clone().unwrap_or_default()),
            ("expires_on", self.expires_on.clone().unwrap_or_default()),
            ("version", self.version.to_string()),
        ]);
        hidden
    }

    /// The end of the given day in UTC.
    fn expires_at(&self) -> Result<Option<Timestamp>, String> {
        self.expires_on.as_deref().map(end_of_day).transpose()
    }
}

pub(super) fn entries(text: &str) -> Vec<String> {
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
    mistakes: Mistakes,
    action: String,
    back: String,
    is_new: bool,
    may_have_multiple: bool,
    gateway: String,
    picker: Picker,
    may_change: bool,
    /// Shown once, with the first webhook URL.
    webhook_secret: Option<String>,
    /// Set for an existing key.
    manage: Option<super::key::Manage>,
}

impl KeyFormPage {
    pub(super) fn new(context: &MerchantContext, fields: KeyFields, mistakes: Mistakes) -> Self {
        Self {
            page: context.page("Generate API key", Screen::ApiKeys),
            action: context.path("/api-keys"),
            is_new: true,
            manage: None,
            ..Self::base(context, fields, mistakes)
        }
    }

    pub(super) fn change(
        context: &MerchantContext,
        key: &ApiKey,
        fields: KeyFields,
        mistakes: Mistakes,
    ) -> Self {
        Self {
            action: context.path(&format!("/api-keys/{}", key.id)),
            manage: Some(super::key::Manage::new(context, key)),
            ..Self::base(context, fields, mistakes)
        }
    }

    pub(super) fn with_webhook_secret(mut self, secret: &str) -> Self {
        self.webhook_secret = Some(secret.to_owned());
        self
    }

    fn base(context: &MerchantContext, fields: KeyFields, mistakes: Mistakes) -> Self {
        let gateway = &context.merchant.gateway;
        Self {
            page: context.page("API key settings", Screen::ApiKeys),
            picker: Picker::new(context, &fields.scopes, None),
            may_change: context.may_change(),
            fields,
            mistakes,
            action: String::new(),
            back: context.path("/api-keys"),
            is_new: false,
            may_have_multiple: gateway == MULTIPLE_JSON_GATEWAY,
            gateway: gateway.clone(),
            webhook_secret: None,
            manage: None,
        }
    }
}
