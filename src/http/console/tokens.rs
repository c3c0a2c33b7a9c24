//! Admin API tokens for programs, of one merchant or of the platform.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use strum::VariantArray;

use super::confirm::{ConfirmPage, last_used};
use super::form::{Form, RestorableForm, filled};
use super::kept_form::FORM_RESTORED;
use super::key_form::{chosen, end_of_day, entries};
use super::listing::next_page;
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as, stored};
use super::people::People;
use super::secrets::{FROM_FIRST_USE, OVERLAPS, RotatePage, Rotation};
use super::words::{self, When};
use crate::domain::admin::{AdminToken, Permission, Role};
use crate::domain::clock::Timestamp;
use crate::domain::ids::AdminTokenId;
use crate::flows::error::Refused;
use crate::flows::manage::check_name;
use crate::flows::manage_keys::parse_allow_list;
use crate::flows::manage_tokens::NewAdminToken;
use crate::flows::token_advice::Advice;
use crate::http::admin::page::{PageQuery, Query, Wanted};
use crate::http::error::Failure;

const NEW_TOKEN: &str = "new admin token";
const ROTATION: &str = "rotate admin token";

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    page: Page,
    base: String,
    is_platform: bool,
    may_change: bool,
    roles: Vec<(&'static str, &'static str)>,
    permissions: Vec<PermissionChoice>,
    fields: TokenFields,
    rows: Vec<Row>,
    next: Option<String>,
    /// The name and secret of a new token, for the only page that shows the secret.
    made: Option<MadeToken>,
    mistakes: Mistakes,
}

struct PermissionChoice {
    name: &'static str,
    allows: &'static str,
    is_chosen: bool,
}

struct Row {
    id: AdminTokenId,
    name: String,
    role: &'static str,
    permissions: Vec<&'static str>,
    addresses: String,
    /// Why it should be replaced by a narrower one.
    narrow: Option<&'static str>,
    state: &'static str,
    class: &'static str,
    is_live: bool,
    earlier_ends: Option<String>,
    created: When,
    expires: Option<When>,
    last_used: Option<When>,
}

#[derive(Default, Deserialize)]
pub(super) struct Asked {
    cursor: Option<String>,
    done: Option<String>,
}

/// The form as it was submitted, or empty.
#[derive(Default, Deserialize)]
pub(super) struct TokenFields {
    #[serde(default)]
    once: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: String,
    /// Names separated by spaces.
    #[serde(default, rename = "permissions[]")]
    permissions: String,
    #[serde(default)]
    allowed_ips: String,
    #[serde(default, deserialize_with = "filled")]
    expires_on: Option<String>,
}

#[derive(Deserialize)]
struct MadeToken {
    name: String,
    token: String,
}

#[derive(Deserialize)]
pub(super) struct TokenPath {
    pub(super) token: AdminTokenId,
}

pub(super) async fn list(people: People, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    html(&tokens_page(&people, asked, TokenFields::default(), None, Mistakes::default()).await?)
}

async fn tokens_page(
    people: &People,
    asked: Asked,
    fields: TokenFields,
    made: Option<MadeToken>,
    mistakes: Mistakes,
) -> Result<TokensPage, Failure> {
    let (core, now) = (people.context.core(), people.context.now);
    let query = PageQuery { limit: None, cursor: asked.cursor };
    let wanted = Wanted::new(core, format!("console tokens of {:?}", people.merchant), query)?;
    let found = core.admin_tokens(&people.principal(), wanted.before, wanted.to_read()).await?;
    let advice = core.tokens_to_narrow().await?;
    let listed = wanted.page(
        found,
        |token| token.id,
        |token| {
            let advice = advice.get(&token.id).copied();
            row(token, advice, now)
        },
    );
    Ok(TokensPage {
        page: people
            .page("Admin tokens", Screen::Tokens, Screen::PlatformTokens)
            .saying(asked.done.as_deref()),
        base: people.path("/tokens"),
        is_platform: people.merchant.is_none(),
        may_change: people.may_change(),
        roles: people.token_roles(),
        permissions: permissions(people, &fields.permissions),
        fields: TokenFields { once: people.context.new_once(), ..fields },
        rows: listed.items,
        next: next_page("", listed.next_cursor.as_deref()),
        made,
        mistakes,
    })
}

/// The permissions that a token can get here.
fn permissions(people: &People, chosen: &str) -> Vec<PermissionChoice> {
    Permission::VARIANTS
        .iter()
        .copied()
        .filter(|one| people.merchant.is_none() || !one.is_of_platform())
        .map(|one| PermissionChoice {
            name: <&str>::from(one),
            allows: words::permission(one),
            is_chosen: chosen.split(' ').any(|name| name == <&str>::from(one)),
        })
        .collect()
}

fn row(token: AdminToken, advice: Option<Advice>, now: Timestamp) -> Row {
    let (state, class) = if token.revoked_at.is_some() {
        ("Revoked", "bad")
    } else if token.is_live(now) {
        ("Active", "good")
    } else {
        ("Expired", "warn")
    };
    let earlier_ends = token.overlap.and_then(|overlap| match overlap.earlier_ends_at {
        None => {
            Some("when the overlap ends. The overlap starts when the new secret is first used".to_owned())
        }
        Some(end) => (now < end).then(|| words::relative(end, now)),
    });
    Row {
        id: token.id,
        is_live: token.is_live(now),
        role: words::role(token.role),
        permissions: token.permissions.iter().copied().map(<&str>::from).collect(),
        addresses: token.allow_list.to_strings().join(", "),
        narrow: advice.map(words::advice),
        state,
        class,
        earlier_ends,
        created: When(token.created_at),
        expires: token.expires_at.map(When),
        last_used: token.last_used_at.map(When),
        name: token.name,
    }
}

pub(super) async fn add(people: People, form: RestorableForm<TokenFields>) -> Result<Response, Failure> {
    let (core, fields) = (people.context.core(), form.fields);
    if form.is_restored {
        let page = tokens_page(&people, Asked::default(), fields, None, Mistakes::default()).await?;
        return html(&TokensPage { page: page.page.saying(FORM_RESTORED), ..page });
    }
    let new = match wanted_token(&people, &fields) {
        Ok(new) => new,
        Err(mistakes) => return refused(&people, fields, mistakes).await,
    };
    let object = people.merchant.map_or_else(uuid::Uuid::nil, |id| id.uuid());
    let principal = people.context.once(&fields.once, NEW_TOKEN, object);
    match answered(core.create_admin_token(&principal, new).await)? {
        Ok(answer) => {
            let made: MadeToken = stored(&answer.into_body())?;
            let fields = TokenFields::default();
            html(&tokens_page(&people, Asked::default(), fields, Some(made), Mistakes::default()).await?)
        }
        Err(refusal) => refused(&people, fields, Mistakes::of(&refusal)).await,
    }
}

async fn refused(people: &People, fields: TokenFields, mistakes: Mistakes) -> Result<Response, Failure> {
    let page = tokens_page(people, Asked::default(), fields, None, mistakes).await?;
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
}

fn wanted_token(people: &People, fields: &TokenFields) -> Result<NewAdminToken, Mistakes> {
    let mut mistakes = Mistakes::default();
    mistakes.check(check_name("name", fields.name.trim()));
    let role: Option<Role> = mistakes.take("role", chosen("Role", &fields.role));
    let named: Option<Vec<Permission>> =
        fields.permissions.split_whitespace().map(|name| name.parse().ok()).collect();
    let named =
        mistakes.take("permissions", named.ok_or_else(|| "Permissions: choose from the list.".to_owned()));
    let allowed_ips = entries(&fields.allowed_ips);
    mistakes.check(parse_allow_list(&allowed_ips).map(drop));
    let expires_at = mistakes.take("expires_on", fields.expires_on.as_deref().map(end_of_day).transpose());
    match (role, expires_at, named) {
        (Some(role), Some(expires_at), Some(permissions)) if mistakes.is_empty() => Ok(NewAdminToken {
            name: fields.name.trim().to_owned(),
            role,
            merchant_id: people.merchant,
            permissions,
            allowed_ips,
            expires_at,
        }),
        _ => Err(mistakes),
    }
}

/// A token of this merchant or of the platform. Other tokens are not found.
pub(super) async fn token_of(people: &People, id: AdminTokenId) -> Result<AdminToken, Failure> {
    Ok(people.context.core().admin_token_by_id(&people.principal(), id).await?)
}

fn rotate_page(people: &People, token: &AdminToken) -> RotatePage {
    RotatePage {
        page: people.page("Rotate the token", Screen::Tokens, Screen::PlatformTokens),
        heading: format!("Rotate \u{201c}{}\u{201d}", token.name),
        what: "admin token",
        action: people.path(&format!("/tokens/{}/rotate", token.id)),
        back: people.path("/tokens"),
        once: people.context.new_once(),
        explains: FROM_FIRST_USE,
        overlaps: &OVERLAPS,
        secret: None,
        error: None,
    }
}

pub(super) async fn show_rotate(
    people: People,
    Path(path): Path<TokenPath>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let token = token_of(&people, path.token).await?;
    let page = rotate_page(&people, &token);
    html(&RotatePage { page: page.page.saying(asked.done.as_deref()), ..page })
}

pub(super) async fn rotate(
    people: People,
    Path(path): Path<TokenPath>,
    Form(form): Form<Rotation>,
) -> Result<Response, Failure> {
    let token = token_of(&people, path.token).await?;
    let principal = people.context.once(&form.once, ROTATION, token.id.uuid());
    let page = rotate_page(&people, &token);
    let core = people.context.core();
    let rotated = core.rotate_admin_token(&principal, token.id, form.overlap_secs).await;
    page.after(rotated, |body| Ok(stored::<MadeToken>(body)?.token))
}

pub(super) async fn confirm_revoke(people: People, Path(path): Path<TokenPath>) -> Result<Response, Failure> {
    let token = token_of(&people, path.token).await?;
    if !token.is_live(people.context.now) {
        return Err(Refused::Conflict("the token has ended".to_owned()).into());
    }
    html(&ConfirmPage {
        page: people.page("Revoke the token", Screen::Tokens, Screen::PlatformTokens),
        heading: format!("Revoke \u{201c}{}\u{201d}?", token.name),
        consequence:
            "All calls with this token are refused immediately. This cannot be undone. Programs that use \
                      it need another token."
                .to_owned(),
        costs: vec![
            ("Role", words::role(token.role).to_owned()),
            ("Last used", last_used(token.last_used_at, people.context.now)),
        ],
        hidden: Vec::new(),
        code: None,
        button: "Revoke this token",
        action: people.path(&format!("/tokens/{}/revoke", token.id)),
        back: people.path("/tokens"),
    })
}

pub(super) async fn revoke(people: People, Path(path): Path<TokenPath>) -> Result<Response, Failure> {
    people.context.core().revoke_admin_token(&people.context.principal, path.token).await?;
    Ok(Redirect::to(&people.path("/tokens?done=token-revoked")).into_response())
}
