//! Users of the console, and requests as their browser would send them.

use tollgate::domain::admin::Role;
use tollgate::domain::ids::{MerchantId, UserId};
use tollgate::domain::secret::PlainSecret;
use tollgate::flows::manage_users::NewUser;
use tollgate::flows::principal::Principal;

use crate::support::{Call, Reply, TestApp};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// A signed-in user.
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) email: &'static str,
    pub(crate) cookie: String,
}

impl Person {
    pub(crate) fn get(&self, path: &str) -> Call {
        Call::get(path).header("cookie", &self.cookie).header("accept", "text/html")
    }

    /// A form, as a page of the console posts it.
    pub(crate) fn post(&self, path: &str, fields: &[(&str, &str)]) -> Call {
        from_a_page(path, fields).header("cookie", &self.cookie)
    }
}

/// A form that a page of the console posts, by whoever that is.
pub(crate) fn from_a_page(path: &str, fields: &[(&str, &str)]) -> Call {
    Call::post(path).form(fields).header("accept", "text/html").header("sec-fetch-site", "same-origin")
}

pub(crate) fn sign_in_form(email: &str, password: &str) -> Call {
    from_a_page("/console/sign-in", &[("email", email), ("password", password)])
}

/// `name=value` of the cookie that a reply sets.
#[track_caller]
pub(crate) fn cookie_of(reply: &Reply) -> String {
    let set = reply.header("set-cookie").unwrap_or_else(|| panic!("{}: no cookie", reply.status));
    set.split(';').next().unwrap_or_default().to_owned()
}

/// The value of a hidden field.
#[track_caller]
pub(crate) fn field(page: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let rest = page.split(&start).nth(1).unwrap_or_else(|| panic!("no field {name} in {page}"));
    rest.split('"').next().unwrap_or_default().to_owned()
}

impl TestApp {
    pub(crate) async fn user(&self, email: &'static str, role: Role, merchant: Option<MerchantId>) -> UserId {
        let password = PlainSecret::new(PASSWORD.to_owned());
        let new = NewUser { email: email.to_owned(), role, merchant_id: merchant, password };
        let made = self.core().create_user(&Principal::command_line(), new).await;
        let made = made.expect("the user is not refused");
        made.made().expect("it was not made before").id
    }

    /// A user who has signed in with their password.
    pub(crate) async fn person(
        &self,
        email: &'static str,
        role: Role,
        merchant: Option<MerchantId>,
    ) -> Person {
        let id = self.user(email, role, merchant).await;
        let reply = self.send(sign_in_form(email, PASSWORD)).await;
        assert_eq!(reply.status, 303, "{}", reply.text());
        Person { id, email, cookie: cookie_of(&reply) }
    }

    /// The cookie of another sign-in.
    pub(crate) async fn cookie_again(&self, email: &str) -> String {
        cookie_of(&self.send(sign_in_form(email, PASSWORD)).await)
    }

    /// The page at a path, which must be there.
    pub(crate) async fn page(&self, person: &Person, path: &str) -> String {
        let reply = self.send(person.get(path)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.text()
    }

    pub(crate) async fn is_signed_in(&self, person: &Person) -> bool {
        self.send(person.get("/console/account")).await.status == 200
    }
}
