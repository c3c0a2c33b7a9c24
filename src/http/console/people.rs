//! Users of the console and tokens of the admin API, for one merchant or for the whole platform.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{FromRequestParts, Path, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::confirm::{ConfirmPage, last_used};
use super::context::{MerchantContext, UserContext};
use super::form::{Form, RestorableForm};
use super::kept_form::FORM_RESTORED;
use super::key_form::chosen;
use super::listing::next_page;
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as};
use super::words::{self, When};
use crate::domain::admin::{Role, User};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, UserId};
use crate::domain::merchant::Merchant;
use crate::domain::secret::PlainSecret;
use crate::flows::error::Refused;
use crate::flows::manage_users::{NewUser, UserChanges};
use crate::flows::principal::Principal;
use crate::http::Shared;
use crate::http::admin::page::{PageQuery, Query, Wanted};
use crate::http::error::Failure;

/// Whose users and tokens these are: those of the merchant in the path, or of the platform (for operators).
pub(super) struct People {
    pub(super) context: UserContext,
    pub(super) merchant: Option<MerchantId>,
    licensed: Option<Merchant>,
}

impl FromRequestParts<Arc<Shared>> for People {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let params = RawPathParams::from_request_parts(parts, shared).await;
        if params.is_ok_and(|params| params.iter().any(|(name, _)| name == "merchant")) {
            let MerchantContext { context, merchant } =
                MerchantContext::from_request_parts(parts, shared).await?;
            return Ok(Self { context, merchant: Some(merchant.id), licensed: Some(merchant) });
        }
        let context = UserContext::from_request_parts(parts, shared).await?;
        context.principal.must_be_operator()?;
        Ok(Self { context, merchant: None, licensed: None })
    }
}

impl People {
    /// The path of one of their screens.
    pub(super) fn path(&self, rest: &str) -> String {
        match self.merchant {
            Some(id) => format!("/console/m/{id}/people{rest}"),
            None => format!("/console/people{rest}"),
        }
    }

    pub(super) fn page(&self, title: &'static str, of_merchant: Screen, of_platform: Screen) -> Page {
        let screen = if self.merchant.is_some() { of_merchant } else { of_platform };
        Page::new(title, screen, &self.context.who, self.licensed.as_ref())
    }

    /// The principal, limited to this merchant.
    pub(super) fn principal(&self) -> Principal {
        Principal { merchant_id: self.merchant, ..self.context.principal.clone() }
    }

    pub(super) fn may_change(&self) -> bool {
        self.context.who.user.role != Role::MerchantViewer
    }

    /// The roles that tokens can have here.
    pub(super) fn token_roles(&self) -> Vec<(&'static str, &'static str)> {
        let mut roles = self.roles();
        roles.push((Role::Service.into(), words::role(Role::Service)));
        roles
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
    users: Vec<UserRow>,
    next: Option<String>,
    /// A secret that was just made, shown once.
    made: Option<Made>,
    fields: Invitation,
    mistakes: Mistakes,
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
    /// The path of the merchant's users, and its name.
    merchant: Option<(String, String)>,
    last_login: Option<When>,
}

#[derive(Default, Deserialize)]
pub(super) struct Asked {
    cursor: Option<String>,
    done: Option<String>,
}

pub(super) async fn list(people: People, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    html(&people_page(&people, asked, None, Invitation::default(), Mistakes::default()).await?)
}

async fn people_page(
    people: &People,
    asked: Asked,
    made: Option<Made>,
    fields: Invitation,
    mistakes: Mistakes,
) -> Result<PeoplePage, Failure> {
    let (core, now, own) = (people.context.core(), people.context.now, people.context.who.user.id);
    let query = PageQuery { limit: None, cursor: asked.cursor };
    let wanted = Wanted::new(core, format!("console people of {:?}", people.merchant), query)?;
    let found = core.users(&people.principal(), wanted.before, wanted.to_read()).await?;
    let names = match people.merchant {
        Some(_) => HashMap::new(),
        None => {
            let merchants = found.iter().filter_map(|user| user.merchant_id).map(MerchantId::uuid);
            core.names(&people.context.principal, None, merchants).await?
        }
    };
    let merchant = |id: MerchantId| {
        let name = names.get(&id.uuid()).cloned().unwrap_or_else(|| id.to_string());
        (format!("/console/m/{id}/people"), name)
    };
    let row = |user: User| {
        let merchant = user.merchant_id.map(merchant);
        user_row(user, merchant, now, own)
    };
    let listed = wanted.page(found, |user| user.id, row);
    Ok(PeoplePage {
        page: people.page("Users", Screen::People, Screen::Platform).saying(asked.done.as_deref()),
        base: people.path(""),
        is_platform: people.merchant.is_none(),
        may_change: people.may_change(),
        roles: people.roles(),
        users: listed.items,
        next: next_page("", listed.next_cursor.as_deref()),
        made,
        fields,
        mistakes,
    })
}

fn user_row(user: User, merchant: Option<(String, String)>, now: Timestamp, own: UserId) -> UserRow {
    let (state, class) = if user.disabled_at.is_some() {
        ("Disabled", "bad")
    } else if user.locked_until.is_some_and(|until| now < until) {
        ("Locked", "warn")
    } else {
        ("Active", "good")
    };
    UserRow {
        id: user.id,
        is_self: user.id == own,
        is_disabled: user.disabled_at.is_some(),
        has_totp: user.has_totp,
        merchant,
        role: words::role(user.role),
        state,
        class,
        last_login: user.last_login_at.map(When),
        email: user.email,
    }
}

/// The form for a new user.
#[derive(Clone, Default, Deserialize)]
pub(super) struct Invitation {
    #[serde(default)]
    email: String,
    #[serde(default)]
    role: String,
}

/// Makes a user with a random password that nobody knows, and a sign-in link with which they can set their
/// own.
pub(super) async fn add_user(people: People, form: RestorableForm<Invitation>) -> Result<Response, Failure> {
    if form.is_restored {
        let page = people_page(&people, Asked::default(), None, form.fields, Mistakes::default()).await?;
        return html(&PeoplePage { page: page.page.saying(FORM_RESTORED), ..page });
    }
    let (core, form) = (people.context.core(), form.fields);
    let role = match chosen("Role", &form.role) {
        Ok(role) => role,
        Err(words) => return refused(&people, form, Mistakes::one("role", words)).await,
    };
    let password = PlainSecret::console(&core.entropy);
    let new = NewUser { email: form.email.clone(), role, merchant_id: people.merchant, password };
    let user = match answered(core.create_user(&people.context.principal, new).await)? {
        Ok(answer) => {
            answer.made().ok_or_else(|| Failure::fault("a user made without a name was repeated"))?
        }
        Err(refusal) => {
            return refused(&people, form, Mistakes::with_conflict_at("email", &refusal)).await;
        }
    };
    with_link(&people, user.id, format!("The user {} was added", user.email)).await
}

async fn refused(people: &People, fields: Invitation, mistakes: Mistakes) -> Result<Response, Failure> {
    let page = people_page(people, Asked::default(), None, fields, mistakes).await?;
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
}

pub(super) async fn with_link(people: &People, user: UserId, heading: String) -> Result<Response, Failure> {
    let core = people.context.core();
    let link = core.make_sign_in_link(&people.context.principal, user).await?;
    let made = Made {
        heading,
        words: "Send this link to the user and to nobody else. It works once, within one hour. The user \
                then sets a password. It is shown only once.",
        label: "One-time sign-in link",
        secret: format!("{}/console/once?token={}", core.issuer, link.expose()),
    };
    let page = people_page(people, Asked::default(), Some(made), Invitation::default(), Mistakes::default());
    html(&page.await?)
}

#[derive(Deserialize)]
pub(super) struct UserPath {
    pub(super) user: UserId,
}

pub(super) async fn link(people: People, Path(path): Path<UserPath>) -> Result<Response, Failure> {
    with_link(&people, path.user, "New sign-in link".to_owned()).await
}

#[derive(Deserialize)]
pub(super) struct Disable {
    disabled: bool,
}

/// The page that asks before a user is disabled. Enabling a user needs no such page.
pub(super) async fn confirm_disable(people: People, Path(path): Path<UserPath>) -> Result<Response, Failure> {
    let user = people.context.core().user(&people.principal(), path.user).await?;
    html(&ConfirmPage {
        page: people.page("Disable a user", Screen::People, Screen::Platform),
        heading: format!("Disable {}?", user.email),
        consequence:
            "The user is signed out everywhere immediately, and cannot sign in until you enable them again."
                .to_owned(),
        costs: vec![
            ("Role", words::role(user.role).to_owned()),
            ("Last sign-in", last_used(user.last_login_at, people.context.now)),
        ],
        hidden: vec![("disabled", "true".to_owned())],
        code: None,
        button: "Disable this user",
        action: people.path(&format!("/users/{}/disable", user.id)),
        back: people.path(""),
    })
}

pub(super) async fn disable(
    people: People,
    Path(path): Path<UserPath>,
    Form(form): Form<Disable>,
) -> Result<Response, Failure> {
    if path.user == people.context.who.user.id {
        let mistakes = Mistakes::one("", "You cannot disable yourself.".to_owned());
        return refused(&people, Invitation::default(), mistakes).await;
    }
    let changes = UserChanges { disabled: Some(form.disabled), ..UserChanges::default() };
    people.context.core().update_user(&people.context.principal, path.user, None, changes).await?;
    let done = if form.disabled { "user-disabled" } else { "user-enabled" };
    Ok(Redirect::to(&people.path(&format!("?done={done}"))).into_response())
}

/// The page that asks before a user's second factor is removed.
pub(super) async fn confirm_remove_factor(
    people: People,
    Path(path): Path<UserPath>,
) -> Result<Response, Failure> {
    let user = people.context.core().user(&people.principal(), path.user).await?;
    if !user.has_totp {
        return Err(Refused::Conflict("the user has no second factor".to_owned()).into());
    }
    html(&ConfirmPage {
        page: people.page("Remove a second factor", Screen::People, Screen::Platform),
        heading: format!("Remove the second factor of {}?", user.email),
        consequence:
            "The user can then sign in with the password alone. Their recovery codes stop working. To \
                      have a second factor again, they must set it up again."
                .to_owned(),
        costs: vec![
            ("Role", words::role(user.role).to_owned()),
            ("Last sign-in", last_used(user.last_login_at, people.context.now)),
        ],
        hidden: Vec::new(),
        code: None,
        button: "Remove second factor",
        action: people.path(&format!("/users/{}/remove-factor", user.id)),
        back: people.path(""),
    })
}

pub(super) async fn remove_factor(people: People, Path(path): Path<UserPath>) -> Result<Response, Failure> {
    people.context.core().remove_totp_of(&people.context.principal, path.user).await?;
    Ok(Redirect::to(&people.path("?done=factor-removed-of")).into_response())
}
