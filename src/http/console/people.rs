//! Users of the console and tokens of the admin API, for one merchant or for the whole platform.

use askama::Template;
use axum::extract::{FromRequestParts, Path, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::sync::Arc;

use super::context::{MerchantContext, UserContext};
use super::form::{Form, filled};
use super::key_form::{chosen, end_of_day};
use super::page::{Page, Screen, answered, html, html_as};
use super::words::{self, When};
use crate::domain::admin::{AdminToken, Permission, Role, User};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{AdminTokenId, MerchantId, UserId};
use crate::domain::secret::PlainSecret;
use crate::flows::manage_tokens::NewAdminToken;
use crate::flows::manage_users::{NewUser, UserChanges};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::admin::page::{PageQuery, Query, Wanted};
use crate::http::error::Failure;

const NEW_TOKEN: &str = "new admin token";

/// How many tokens the page shows: the newest ones.
const TOKENS_MAX: i64 = 200;

/// Whose users and tokens: those of the merchant in the path, or of the platform, for operators.
pub(super) struct People {
    context: UserContext,
    merchant: Option<MerchantId>,
    page: fn(&'static str, &Self) -> Page,
    licensed: Option<crate::flows::manage_merchants::LicensedMerchant>,
}

impl FromRequestParts<Arc<Shared>> for People {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let params = RawPathParams::from_request_parts(parts, shared).await;
        if params.is_ok_and(|params| params.iter().any(|(name, _)| name == "merchant")) {
            let MerchantContext { context, merchant } =
                MerchantContext::from_request_parts(parts, shared).await?;
            let id = merchant.merchant.id;
            let page = |title, people: &Self| {
                Page::new(title, Screen::People, &people.context.who, people.licensed.as_ref())
            };
            return Ok(Self { context, merchant: Some(id), page, licensed: Some(merchant) });
        }
        let context = UserContext::from_request_parts(parts, shared).await?;
        context.principal.must_be_operator()?;
        let page = |title, people: &Self| people.context.page(title, Screen::Platform);
        Ok(Self { context, merchant: None, page, licensed: None })
    }
}

impl People {
    fn base(&self) -> String {
        match self.merchant {
            Some(id) => format!("/console/m/{id}/people"),
            None => "/console/people".to_owned(),
        }
    }

    /// The principal, limited to this merchant.
    fn principal(&self) -> Principal {
        Principal { merchant_id: self.merchant, ..self.context.principal.clone() }
    }

    fn may_change(&self) -> bool {
        self.context.who.user.role != Role::MerchantViewer
    }

    /// The roles that a new user can get here.
    fn roles(&self) -> Vec<(&'static str, &'static str)> {
        let of = |role: Role| (<&str>::from(role), words::role(role));
        match self.merchant {
            Some(_) => vec![of(Role::MerchantAdmin), of(Role::MerchantViewer)],
            None => vec![of(Role::Operator)],
        }
    }
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    page: Page,
    base: String,
    is_platform: bool,
    may_change: bool,
    roles: Vec<(&'static str, &'static str)>,
    once: String,
    users: Vec<UserRow>,
    tokens: Vec<TokenRow>,
    next_cursor: Option<String>,
    /// A secret that was just made, shown once.
    made: Option<Made>,
    error: Option<String>,
}

struct Made {
    heading: String,
    words: &'static str,
    label: &'static str,
    secret: String,
}

struct UserRow {
    id: UserId,
    email: String,
    role: &'static str,
    state: &'static str,
    class: &'static str,
    is_disabled: bool,
    has_totp: bool,
    is_self: bool,
    /// Set on the page of the whole platform.
    merchant: Option<MerchantId>,
    last_login: Option<When>,
}

struct TokenRow {
    id: AdminTokenId,
    name: String,
    role: &'static str,
    is_service: bool,
    state: &'static str,
    class: &'static str,
    is_live: bool,
    created: When,
    expires: Option<When>,
    last_used: Option<When>,
}

#[derive(Default, Deserialize)]
pub(super) struct Asked {
    cursor: Option<String>,
    done: Option<String>,
}

pub(super) async fn list(people: People, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    html(&people_page(&people, asked, None, None).await?)
}

async fn people_page(
    people: &People,
    asked: Asked,
    made: Option<Made>,
    error: Option<String>,
) -> Result<PeoplePage, Failure> {
    let (core, now, own) = (people.context.core(), people.context.now, people.context.who.user.id);
    let query = PageQuery { limit: None, cursor: asked.cursor };
    let wanted = Wanted::new(core, format!("console people of {:?}", people.merchant), query)?;
    let found = core.users(&people.principal(), wanted.before, wanted.to_read()).await?;
    let listed = wanted.page(found, |user| user.id, |user| user_row(user, now, own));
    let tokens = core.admin_tokens(&people.principal(), None, TOKENS_MAX).await?;
    let title = if people.merchant.is_some() { "Users and tokens" } else { "People and tokens" };
    Ok(PeoplePage {
        page: (people.page)(title, people).saying(asked.done.as_deref()),
        base: people.base(),
        is_platform: people.merchant.is_none(),
        may_change: people.may_change(),
        roles: people.roles(),
        once: people.context.new_once(),
        users: listed.items,
        tokens: tokens.into_iter().map(|token| token_row(token, now)).collect(),
        next_cursor: listed.next_cursor,
        made,
        error,
    })
}

fn user_row(user: User, now: Timestamp, own: UserId) -> UserRow {
    let (state, class) = if user.disabled_at.is_some() {
        ("Disabled", "bad")
    } else if user.locked_until.is_some_and(|until| now < until) {
        ("Locked for now", "warn")
    } else {
        ("Active", "good")
    };
    UserRow {
        id: user.id,
        is_self: user.id == own,
        is_disabled: user.disabled_at.is_some(),
        has_totp: user.has_totp,
        merchant: user.merchant_id,
        role: words::role(user.role),
        state,
        class,
        last_login: user.last_login_at.map(When),
        email: user.email,
    }
}

fn token_row(token: AdminToken, now: Timestamp) -> TokenRow {
    let (state, class) = if token.revoked_at.is_some() {
        ("Revoked", "bad")
    } else if token.is_live(now) {
        ("Active", "good")
    } else {
        ("Expired", "warn")
    };
    TokenRow {
        id: token.id,
        is_live: token.is_live(now),
        role: words::role(token.role),
        is_service: token.permissions.contains(&Permission::Introspect),
        state,
        class,
        created: When(token.created_at),
        expires: token.expires_at.map(When),
        last_used: token.last_used_at.map(When),
        name: token.name,
    }
}

#[derive(Deserialize)]
pub(super) struct Invitation {
    email: String,
    role: String,
}

/// Makes a user with a random password that nobody knows, and a sign-in link with which they can set their
/// own.
pub(super) async fn add_user(people: People, Form(form): Form<Invitation>) -> Result<Response, Failure> {
    let core = people.context.core();
    let role = match chosen("Role", &form.role) {
        Ok(role) => role,
        Err(words) => return refused(&people, words).await,
    };
    let password = PlainSecret::console(&core.entropy);
    let new = NewUser { email: form.email, role, merchant_id: people.merchant, password };
    let user = match answered(core.create_user(&people.context.principal, new).await)? {
        Ok(answer) => {
            answer.made().ok_or_else(|| Failure::fault("a user made without a name was repeated"))?
        }
        Err(refusal) => return refused(&people, words::refusal(&refusal)).await,
    };
    with_link(&people, user.id, format!("{} can sign in", user.email)).await
}

async fn refused(people: &People, words: String) -> Result<Response, Failure> {
    let page = people_page(people, Asked::default(), None, Some(words)).await?;
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
}

async fn with_link(people: &People, user: UserId, heading: String) -> Result<Response, Failure> {
    let core = people.context.core();
    let link = core.make_sign_in_link(&people.context.principal, user).await?;
    let made = Made {
        heading,
        words: "Send this link to them, and to nobody else. It signs in once, within the hour; they set a \
                password afterwards. It is shown this once.",
        label: "One-time sign-in link",
        secret: format!("{}/console/once?token={}", core.issuer, link.expose()),
    };
    html(&people_page(people, Asked::default(), Some(made), None).await?)
}

#[derive(Deserialize)]
pub(super) struct UserPath {
    user: UserId,
}

pub(super) async fn link(people: People, Path(path): Path<UserPath>) -> Result<Response, Failure> {
    with_link(&people, path.user, "A new way in".to_owned()).await
}

#[derive(Deserialize)]
pub(super) struct Disable {
    disabled: bool,
}

pub(super) async fn disable(
    people: People,
    Path(path): Path<UserPath>,
    Form(form): Form<Disable>,
) -> Result<Response, Failure> {
    if path.user == people.context.who.user.id {
        return refused(&people, "You cannot disable yourself.".to_owned()).await;
    }
    let changes = UserChanges { disabled: Some(form.disabled), password: None };
    people.context.core().update_user(&people.context.principal, path.user, None, changes).await?;
    Ok(Redirect::to(&format!("{}?done=user-updated", people.base())).into_response())
}

pub(super) async fn remove_factor(people: People, Path(path): Path<UserPath>) -> Result<Response, Failure> {
    people.context.core().remove_totp_of(&people.context.principal, path.user).await?;
    Ok(Redirect::to(&format!("{}?done=factor-removed", people.base())).into_response())
}

#[derive(Deserialize)]
pub(super) struct NewToken {
    once: String,
    name: String,
    role: String,
    #[serde(default)]
    introspect: bool,
    #[serde(default, deserialize_with = "filled")]
    expires_on: Option<String>,
}

#[derive(Deserialize)]
struct MadeToken {
    name: String,
    token: String,
}

pub(super) async fn add_token(people: People, Form(form): Form<NewToken>) -> Result<Response, Failure> {
    let core = people.context.core();
    let new = match wanted_token(&people, &form) {
        Ok(new) => new,
        Err(words) => return refused(&people, words).await,
    };
    let object = people.merchant.map_or_else(uuid::Uuid::nil, |id| id.uuid());
    let principal = people.context.once(&form.once, NEW_TOKEN, object);
    let body = match answered(core.create_admin_token(&principal, new).await)? {
        Ok(answer) => answer.into_body(),
        Err(refusal) => return refused(&people, words::refusal(&refusal)).await,
    };
    let made: MadeToken =
        serde_json::from_slice(&body).map_err(|_| Failure::fault("a kept answer is not one to this form"))?;
    let made = Made {
        heading: format!("The token \u{201c}{}\u{201d} is made", made.name),
        words: "Copy it now and keep it like a password. It is shown this once.",
        label: "Admin token",
        secret: made.token,
    };
    html(&people_page(&people, Asked::default(), Some(made), None).await?)
}

fn wanted_token(people: &People, form: &NewToken) -> Result<NewAdminToken, String> {
    let is_service = form.introspect && people.merchant.is_none();
    Ok(NewAdminToken {
        name: form.name.trim().to_owned(),
        role: if is_service { Role::Service } else { chosen("Role", &form.role)? },
        merchant_id: people.merchant,
        permissions: if is_service { vec![Permission::Introspect] } else { Vec::new() },
        allowed_ips: Vec::new(),
        expires_at: form.expires_on.as_deref().map(end_of_day).transpose()?,
    })
}

#[derive(Deserialize)]
pub(super) struct TokenPath {
    token: AdminTokenId,
}

pub(super) async fn revoke_token(people: People, Path(path): Path<TokenPath>) -> Result<Response, Failure> {
    people.context.core().revoke_admin_token(&people.context.principal, path.token).await?;
    Ok(Redirect::to(&format!("{}?done=token-revoked", people.base())).into_response())
}
