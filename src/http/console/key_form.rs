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
use crate::flows::Core;
use crate::flows::manage::check_name;
use crate::flows::manage_keys::{ApiKeyChanges, NewApiKey, parse_allow_list};

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

    /// The new key, or all mistakes in the order of the form.
    pub(super) fn to_new(&self, core: &Core) -> Result<NewApiKey, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.check(check_name("name", self.name.trim()));
        let environment = wrong.take("environment", chosen("Environment", &self.environment));
        wrong.check(parse_allow_list(&entries(&self.allowed_ips)).map(drop));
        let ip_mode = wrong.take("ip_mode", chosen("Calls from other addresses", &self.ip_mode));
        let webhook_format = wrong.take("webhook_format", chosen("Output type", &self.webhook_format));
        wrong.check(self.webhook_url.as_deref().map_or(Ok(()), |url| core.check_webhook_url(url)));
        let scopes = wrong.take("scopes", self.scopes.wanted());
        let expires_at = wrong.take("expires_on", self.expires_at());
        match (environment, ip_mode, webhook_format, scopes, expires_at) {
            (Some(environment), Some(ip_mode), Some(webhook_format), Some(scopes), Some(expires_at))
                if wrong.is_empty() =>
            {
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

    /// The changes to a key, or all mistakes in the order of the form.
    pub(super) fn to_changes(&self, core: &Core, key: &ApiKey) -> Result<ApiKeyChanges, Mistakes> {
        let now = Self::of(key);
        let mut wrong = Mistakes::default();
        wrong.check(check_name("name", self.name.trim()));
        wrong.check(parse_allow_list(&entries(&self.allowed_ips)).map(drop));
        let ip_mode = wrong.take("ip_mode", chosen("Calls from other addresses", &self.ip_mode));
        let webhook_format = wrong.take("webhook_format", chosen("Output type", &self.webhook_format));
        wrong.check(self.webhook_url.as_deref().map_or(Ok(()), |url| core.check_webhook_url(url)));
        let scopes = wrong.take("scopes", self.scopes.wanted());
        let expires_at = wrong.take("expires_on", self.expires_at());
        match (ip_mode, webhook_format, scopes, expires_at) {
            (Some(ip_mode), Some(webhook_format), Some(scopes), Some(expires_at)) if wrong.is_empty() => {
                Ok(ApiKeyChanges {
                    name: Some(self.name.trim().to_owned()),
                    allowed_ips: Some(entries(&self.allowed_ips)),
                    ip_mode: Some(ip_mode),
                    webhook_format: Some(webhook_format),
                    // Only set what was changed: setting the URL again would enable it again.
                    webhook_url: (self.webhook_url != now.webhook_url).then(|| self.webhook_url.clone()),
                    scopes: is_change(scopes.as_ref(), key.scopes.as_ref()).then_some(scopes),
                    expires_at: (self.expires_on != now.expires_on).then_some(expires_at),
                })
            }
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

/// The form, filled in.
pub(super) struct KeyForm {
    pub(super) fields: KeyFields,
    pub(super) mistakes: Mistakes,
    pub(super) action: String,
    pub(super) picker: Picker,
    pub(super) may_have_multiple: bool,
    pub(super) gateway: String,
    pub(super) is_new: bool,
}

impl KeyForm {
    /// For the settings of an existing key.
    pub(super) fn of(context: &MerchantContext, key: &ApiKey, fields: KeyFields, mistakes: Mistakes) -> Self {
        let action = context.path(&format!("/api-keys/{}", key.id));
        Self { action, is_new: false, ..Self::new(context, fields, mistakes) }
    }

    /// For a new key.
    fn new(context: &MerchantContext, fields: KeyFields, mistakes: Mistakes) -> Self {
        let gateway = &context.merchant.gateway;
        Self {
            picker: Picker::new(context, &fields.scopes, None),
            fields,
            mistakes,
            action: context.path("/api-keys"),
            may_have_multiple: gateway == MULTIPLE_JSON_GATEWAY,
            gateway: gateway.clone(),
            is_new: true,
        }
    }
}

/// "Generate API key".
#[derive(Template)]
#[template(path = "new_key.html")]
pub(super) struct NewKeyPage {
    page: Page,
    form: KeyForm,
    back: String,
}

impl NewKeyPage {
    pub(super) fn new(context: &MerchantContext, fields: KeyFields, mistakes: Mistakes) -> Self {
        Self {
            page: context.page("Generate API key", Screen::ApiKeys),
            form: KeyForm::new(context, fields, mistakes),
            back: context.path("/api-keys"),
        }
    }

    pub(super) fn saying(self, done: Option<&str>) -> Self {
        Self { page: self.page.saying(done), ..self }
    }
}
