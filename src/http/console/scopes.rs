//! Choosing the scopes of a key or of client credentials. Before some are taken away, a page shows who used
//! them in the last 30 days.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::access_keys::{ClientPath, credentials_of};
use super::context::MerchantContext;
use super::form::RestorableForm;
use super::kept_form::FORM_RESTORED;
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as};
use super::words::When;
use crate::domain::credential::Credential;
use crate::domain::ids::ApiKeyId;
use crate::domain::scope::Scopes;
use crate::flows::manage_credentials::CredentialChanges;
use crate::flows::scopes::ScopeUse;
use crate::http::error::Failure;

/// The part of a form that chooses scopes.
#[derive(Clone, Default, Deserialize)]
pub(super) struct ScopeFields {
    /// `all` or `some`. If it is missing, the named scopes count, or all of them if none is named.
    #[serde(default)]
    scope_mode: String,
    /// Checked scopes, separated by spaces.
    #[serde(default, rename = "scopes[]")]
    picked: String,
    /// Typed scopes, separated by white space.
    #[serde(default)]
    scopes: String,
    /// Set by the page that shows what would be taken away.
    #[serde(default)]
    confirmed: String,
}

impl ScopeFields {
    pub(super) fn of(scopes: Option<&Scopes>) -> Self {
        Self {
            scope_mode: if scopes.is_some() { "some" } else { "all" }.to_owned(),
            picked: scopes.map(Scopes::to_string).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// For users who may only read.
    pub(super) fn as_text(&self) -> String {
        let names = self.names();
        if names.is_empty() { "All scopes".to_owned() } else { names.join(" ") }
    }

    fn names(&self) -> Vec<String> {
        self.picked.split_whitespace().chain(self.scopes.split_whitespace()).map(str::to_owned).collect()
    }

    /// The scopes that were chosen. `None` means every scope.
    pub(super) fn wanted(&self) -> Result<Option<Vec<String>>, String> {
        let names = self.names();
        match self.scope_mode.as_str() {
            "all" => Ok(None),
            "some" if names.is_empty() => Err("Scopes: choose at least one, or all scopes.".to_owned()),
            _ => Ok((!names.is_empty()).then_some(names)),
        }
    }

    /// The same fields, hidden, for the page that asks.
    pub(super) fn hidden(&self) -> Vec<(&'static str, String)> {
        vec![
            ("scope_mode", self.scope_mode.clone()),
            ("scopes[]", self.names().join(" ")),
            ("confirmed", "narrow".to_owned()),
        ]
    }
}

/// Whether these names are a different set than `now`.
pub(super) fn is_change(wanted: Option<&Vec<String>>, now: Option<&Scopes>) -> bool {
    match (wanted, now) {
        (None, None) => false,
        (Some(names), Some(now)) => {
            !Scopes::of(names.iter().map(String::as_str)).is_ok_and(|wanted| wanted.is_same_set(now))
        }
        _ => true,
    }
}

/// The choice as a form shows it.
pub(super) struct Picker {
    pub(super) is_all: bool,
    pub(super) all: &'static str,
    pub(super) known: Vec<Known>,
    /// Set if there is no list of the scopes that exist. The user then types names.
    pub(super) typed: Option<String>,
}

pub(super) struct Known {
    pub(super) name: String,
    pub(super) allows: String,
    pub(super) is_chosen: bool,
}

impl Picker {
    /// For credentials, `within` is what their key may do.
    pub(super) fn new(context: &MerchantContext, fields: &ScopeFields, within: Option<&Scopes>) -> Self {
        let core = context.context.core();
        let chosen = fields.names();
        let exist: Vec<String> = match within {
            Some(scopes) => scopes.to_strings(),
            None => core.known_scopes.clone(),
        };
        let gone = chosen.iter().filter(|name| !exist.contains(name)).cloned();
        let known = |name: String| Known {
            allows: match core.scope_descriptions.get(&name) {
                Some(words) => words.clone(),
                None if exist.contains(&name) => String::new(),
                None => "This scope no longer exists.".to_owned(),
            },
            is_chosen: chosen.contains(&name),
            name,
        };
        let is_listed = !exist.is_empty();
        Self {
            is_all: fields.scope_mode != "some" && chosen.is_empty(),
            all: if within.is_some() { "All scopes of the API key" } else { "All scopes" },
            typed: (!is_listed).then(|| chosen.join(" ")),
            known: if is_listed {
                exist.iter().cloned().chain(gone).map(known).collect()
            } else {
                Vec::new()
            },
        }
    }
}

/// The page that shows who used the scopes that would be taken away.
#[derive(Template)]
#[template(path = "narrow.html")]
struct NarrowPage {
    page: Page,
    heading: String,
    /// The scopes that are taken away, or the only ones that are left.
    taken: Vec<String>,
    left: Vec<String>,
    rows: Vec<UseRow>,
    hidden: Vec<(&'static str, String)>,
    action: String,
    back: String,
}

struct UseRow {
    client_id: Option<String>,
    scope: Option<String>,
    tokens: i64,
    checks: i64,
    last: When,
}

/// A change of scopes that the user wants to make.
pub(super) struct Narrowing<'a> {
    pub(super) key: ApiKeyId,
    /// Set if the change is about these credentials only.
    pub(super) client_id: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) now: Option<&'a Scopes>,
    pub(super) wanted: Option<&'a Vec<String>>,
    pub(super) action: String,
    pub(super) hidden: Vec<(&'static str, String)>,
}

/// The page that asks first, if the change takes something away and was not confirmed yet.
pub(super) async fn question(
    context: &MerchantContext,
    fields: &ScopeFields,
    narrowing: Narrowing<'_>,
) -> Result<Option<Response>, Failure> {
    let wanted = narrowing.wanted.and_then(|names| Scopes::of(names.iter().map(String::as_str)).ok());
    let Some(wanted) = wanted.filter(|_| fields.confirmed != "narrow") else { return Ok(None) };
    let taken: Vec<String> = match narrowing.now {
        Some(now) => now.names().filter(|name| !wanted.holds(name)).map(str::to_owned).collect(),
        None => Vec::new(),
    };
    if narrowing.now.is_some() && taken.is_empty() {
        return Ok(None);
    }
    let uses = context.context.core().scope_use(&context.context.principal, narrowing.key).await?;
    let is_hit = |one: &ScopeUse| {
        let is_of_client = narrowing.client_id.is_none_or(|id| one.client_id.as_deref() == Some(id));
        is_of_client && one.scope.as_deref().is_none_or(|scope| !wanted.holds(scope))
    };
    let rows = uses.into_iter().filter(is_hit).map(|one| UseRow {
        client_id: one.client_id,
        scope: one.scope,
        tokens: one.tokens,
        checks: one.checks,
        last: When(one.last_at),
    });
    let page = NarrowPage {
        page: context.page("Remove scopes", Screen::ApiKeys),
        heading: format!("Remove scopes from {}?", narrowing.name),
        taken,
        left: wanted.to_strings(),
        rows: rows.collect(),
        hidden: narrowing.hidden,
        back: narrowing.action.clone(),
        action: narrowing.action,
    };
    html(&page).map(Some)
}

#[derive(Template)]
#[template(path = "client_scopes.html")]
struct ClientScopesPage {
    page: Page,
    client_id: String,
    picker: Picker,
    version: i64,
    action: String,
    back: String,
    may_change: bool,
    mistakes: Mistakes,
}

#[derive(Deserialize)]
pub(super) struct ClientScopes {
    version: i64,
    #[serde(flatten)]
    scopes: ScopeFields,
}

fn client_page(
    context: &MerchantContext,
    within: Option<&Scopes>,
    client: &Credential,
    fields: &ScopeFields,
    mistakes: Mistakes,
) -> ClientScopesPage {
    let base = context.path(&format!("/api-keys/{}/tokens", client.api_key_id));
    ClientScopesPage {
        page: context.page("Scopes", Screen::ApiKeys),
        client_id: client.client_id.clone(),
        picker: Picker::new(context, fields, within),
        version: client.version,
        action: format!("{base}/{}/scopes", client.client_id),
        back: base,
        may_change: context.may_change(),
        mistakes,
    }
}

pub(super) async fn show_client(
    context: MerchantContext,
    Path(path): Path<ClientPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let client = credentials_of(&context, &key, &path.client).await?;
    let fields = ScopeFields::of(client.scopes.as_ref());
    html(&client_page(&context, key.scopes.as_ref(), &client, &fields, Mistakes::default()))
}

pub(super) async fn save_client(
    context: MerchantContext,
    Path(path): Path<ClientPath>,
    form: RestorableForm<ClientScopes>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let client = credentials_of(&context, &key, &path.client).await?;
    let is_restored = form.is_restored;
    let form = form.fields;
    if is_restored {
        let page = client_page(&context, key.scopes.as_ref(), &client, &form.scopes, Mistakes::default());
        return html(&ClientScopesPage { page: page.page.saying(FORM_RESTORED), ..page });
    }
    let refused = |mistakes| {
        let page = client_page(&context, key.scopes.as_ref(), &client, &form.scopes, mistakes);
        html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
    };
    let wanted = match form.scopes.wanted() {
        Ok(wanted) => wanted,
        Err(words) => return refused(Mistakes::one("scopes", words)),
    };
    let base = context.path(&format!("/api-keys/{}/tokens", key.id));
    let mut hidden = form.scopes.hidden();
    hidden.push(("version", form.version.to_string()));
    let narrowing = Narrowing {
        key: key.id,
        client_id: Some(&client.client_id),
        name: &client.client_id,
        now: client.scopes.as_ref().or(key.scopes.as_ref()),
        wanted: wanted.as_ref(),
        action: format!("{base}/{}/scopes", client.client_id),
        hidden,
    };
    if let Some(asked) = question(&context, &form.scopes, narrowing).await? {
        return Ok(asked);
    }
    let changes = CredentialChanges { scopes: Some(wanted), ..CredentialChanges::default() };
    let core = context.context.core();
    let principal = &context.context.principal;
    let saved =
        core.update_credentials(principal, &client.client_id, Some(vec![form.version]), changes).await;
    match answered(saved)? {
        Ok(_) => Ok(Redirect::to(&format!("{base}?done=saved")).into_response()),
        Err(refusal) => refused(Mistakes::of(&refusal)),
    }
}
