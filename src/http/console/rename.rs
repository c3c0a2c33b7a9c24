//! Another name for an admin token, and another e-mail address for a user.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::RestorableForm;
use super::kept_form::FORM_RESTORED;
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as};
use super::people::{People, UserPath, with_link};
use super::tokens::{TokenPath, token_of};
use crate::domain::secret::PlainSecret;
use crate::flows::error::Refused;
use crate::flows::manage_users::UserChanges;
use crate::http::error::Failure;

#[derive(Template)]
#[template(path = "rename.html")]
struct RenamePage {
    page: Page,
    heading: String,
    consequence: &'static str,
    label: &'static str,
    /// The field of the refusals that are about the new name.
    field: &'static str,
    kind: &'static str,
    value: String,
    mistakes: Mistakes,
    action: String,
    back: String,
}

#[derive(Deserialize)]
pub(super) struct NewName {
    #[serde(default)]
    name: String,
}

impl RenamePage {
    /// The page again, with what was typed.
    fn again(self, value: String, mistakes: Mistakes) -> Result<Response, Failure> {
        html_as(StatusCode::UNPROCESSABLE_ENTITY, &Self { value, mistakes, ..self })
    }

    fn restored(self, value: String) -> Result<Response, Failure> {
        html(&Self { value, page: self.page.saying(FORM_RESTORED), ..self })
    }
}

async fn of_token(people: &People, path: &TokenPath) -> Result<RenamePage, Failure> {
    let token = token_of(people, path.token).await?;
    Ok(RenamePage {
        page: people.page("Rename the token", Screen::Tokens, Screen::PlatformTokens),
        heading: format!("Rename \u{201c}{}\u{201d}", token.name),
        consequence: "The token itself and its permissions do not change.",
        label: "Name",
        field: "name",
        kind: "text",
        value: token.name,
        mistakes: Mistakes::default(),
        action: people.path(&format!("/tokens/{}/rename", token.id)),
        back: people.path("/tokens"),
    })
}

pub(super) async fn show_token(people: People, Path(path): Path<TokenPath>) -> Result<Response, Failure> {
    html(&of_token(&people, &path).await?)
}

pub(super) async fn token(
    people: People,
    Path(path): Path<TokenPath>,
    form: RestorableForm<NewName>,
) -> Result<Response, Failure> {
    let (page, name) = (of_token(&people, &path).await?, form.fields.name);
    if form.is_restored {
        return page.restored(name);
    }
    let (core, principal) = (people.context.core(), &people.context.principal);
    match answered(core.rename_admin_token(principal, path.token, name.trim().to_owned()).await)? {
        Ok(_) => Ok(Redirect::to(&people.path("/tokens?done=renamed")).into_response()),
        Err(refusal) => page.again(name, Mistakes::of(&refusal)),
    }
}

async fn of_user(people: &People, path: &UserPath) -> Result<RenamePage, Failure> {
    if path.user == people.context.who.user.id {
        return Err(Refused::Conflict("you cannot change your own address".to_owned()).into());
    }
    let user = people.context.core().user(&people.principal(), path.user).await?;
    Ok(RenamePage {
        page: people.page("Change an address", Screen::People, Screen::Platform),
        heading: format!("Change the address of {}", user.email),
        consequence: "The user is signed out everywhere, and the password ends. You get a one-time sign-in link for the user, \
                      who then sets a new password. The role and the second factor stay.",
        label: "E-mail",
        field: "email",
        kind: "email",
        value: user.email,
        mistakes: Mistakes::default(),
        action: people.path(&format!("/users/{}/rename", user.id)),
        back: people.path(""),
    })
}

pub(super) async fn show_user(people: People, Path(path): Path<UserPath>) -> Result<Response, Failure> {
    html(&of_user(&people, &path).await?)
}

pub(super) async fn user(
    people: People,
    Path(path): Path<UserPath>,
    form: RestorableForm<NewName>,
) -> Result<Response, Failure> {
    let (page, email) = (of_user(&people, &path).await?, form.fields.name);
    if form.is_restored {
        return page.restored(email);
    }
    let core = people.context.core();
    // A random password that nobody knows. The user signs in with the link and sets their own.
    let password = Some(PlainSecret::console(&core.entropy));
    let changes = UserChanges { email: Some(email.clone()), password, disabled: None };
    match answered(core.update_user(&people.context.principal, path.user, None, changes).await)? {
        Ok(user) => with_link(&people, user.id, format!("The address is now {}", user.email)).await,
        Err(refusal) => page.again(email, Mistakes::with_conflict_at("email", &refusal)),
    }
}
