//! One e-mail address, several users: at each merchant one, and nobody learns where else.

use chrono::TimeDelta;
use serde_json::json;
use tollgate::domain::admin::Role;
use tollgate::domain::console::FAILURES_MAX;
use tollgate::domain::ids::{MerchantId, UserId};
use tollgate::domain::secret::PlainSecret;
use tollgate::flows::manage_users::{NewUser, UserChanges};
use tollgate::flows::principal::Principal;

use super::people::{PASSWORD, Person, cookie_of, field, from_a_page, sign_in_form};
use crate::admin::{Admin, text};
use crate::support::merchant::done;
use crate::support::{Call, TestApp, each_engine};

const ADA: &str = "ada@harbour.example";
const OTHER: &str = "three blind mice run";

/// Ada, once more.
async fn ada(app: &TestApp, merchant: MerchantId, password: &str) -> UserId {
    let password = PlainSecret::new(password.to_owned());
    let (email, role, merchant_id) = (ADA.to_owned(), Role::MerchantAdmin, Some(merchant));
    let new = NewUser { email, role, merchant_id, password };
    let made = done(app.core().create_user(&Principal::command_line(), new).await);
    made.made().expect("it was not made before").id
}

async fn set_password(app: &TestApp, user: UserId, password: &str) {
    let changes =
        UserChanges { password: Some(PlainSecret::new(password.to_owned())), ..UserChanges::default() };
    done(app.core().update_user(&Principal::command_line(), user, None, changes).await);
}

/// Where Ada is after a sign-in that was not refused.
async fn home(app: &TestApp, reply: &crate::support::Reply, id: UserId) -> String {
    let person = Person { id, email: ADA, cookie: cookie_of(reply) };
    app.send(person.get("/console")).await.header("location").unwrap_or_default().to_owned()
}

#[tokio::test]
async fn whether_an_address_has_a_user_elsewhere_is_not_learnt_by_making_one() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let user = |merchant: MerchantId| {
            json!({ "email": ADA, "role": "merchant_admin", "merchant_id": merchant, "password": PASSWORD })
        };
        for _ in 0..2 {
            let merchant = app.merchant().await.id;
            let admin = Admin::of(&app, Role::MerchantAdmin, Some(merchant)).await;
            let made = admin.post("/users", user(merchant)).await.created();
            admin.post("/users", user(merchant)).await.problem(409, "conflict");
            assert_eq!(admin.get("/users").await.ok()["items"], json!([made]));
            assert_eq!(text(&made, "email"), ADA);
        }
        let of_platform = json!({ "email": ADA, "role": "operator", "password": PASSWORD });
        operator.post("/users", of_platform.clone()).await.created();
        operator.post("/users", of_platform).await.problem(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn one_computation_is_compared_with_all_users_of_an_address() {
    each_engine(async |app| {
        let (one, other) = (app.merchant().await.id, app.merchant().await.id);
        let first = ada(&app, one, PASSWORD).await;
        ada(&app, other, OTHER).await;
        set_password(&app, first, "another one of them").await;
        app.user("bob@harbour.example", Role::Operator, None).await;
        let mut db = app.core().store.read().await.expect("the store answers");
        let hashes = db.query("select password_hash from users order by email").all::<(String,)>().await;
        let salts: Vec<String> = hashes
            .expect("the query is right")
            .iter()
            .map(|(hash,)| hash.rsplit_once('$').expect("it is a PHC string").0.to_owned())
            .collect();
        assert_eq!(salts[0], salts[1]);
        assert_ne!(salts[0], salts[2]);
    })
    .await;
}

#[tokio::test]
async fn each_password_of_an_address_signs_its_own_user_in_and_locks_no_other() {
    each_engine(async |app| {
        let (one, other) = (app.merchant().await.id, app.merchant().await.id);
        let (first, second) = (ada(&app, one, PASSWORD).await, ada(&app, other, OTHER).await);
        for _ in 0..FAILURES_MAX + 2 {
            let reply = app.send(sign_in_form(ADA, PASSWORD)).await;
            assert_eq!(home(&app, &reply, first).await, format!("/console/m/{one}"));
        }
        let reply = app.send(sign_in_form(ADA, OTHER)).await;
        assert_eq!(home(&app, &reply, second).await, format!("/console/m/{other}"));
    })
    .await;
}

#[tokio::test]
async fn several_users_of_an_address_give_no_more_guesses_than_one() {
    each_engine(async |app| {
        let (one, other) = (app.merchant().await.id, app.merchant().await.id);
        ada(&app, one, PASSWORD).await;
        let own = ada(&app, other, OTHER).await;
        // Whoever administers the other merchant tries passwords out by setting them there.
        for n in 0..FAILURES_MAX {
            let guess = format!("the guess number {n}");
            set_password(&app, own, &guess).await;
            assert_eq!(app.send(sign_in_form(ADA, &guess)).await.status, 303);
        }
        set_password(&app, own, PASSWORD).await;
        let reply = app.send(sign_in_form(ADA, PASSWORD)).await;
        assert_eq!(home(&app, &reply, own).await, format!("/console/m/{other}"), "the first one is locked");

        app.advance(TimeDelta::minutes(30));
        for _ in 0..FAILURES_MAX {
            assert_eq!(app.send(sign_in_form(ADA, "not this one, no")).await.status, 422);
        }
        assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.status, 422, "both are locked");
    })
    .await;
}

#[tokio::test]
async fn whoever_has_one_password_for_several_users_chooses_the_merchant_after_it() {
    each_engine(async |app| {
        let operator = Admin::operator(&app).await;
        let (one, other) = (app.merchant().await.id, app.merchant().await.id);
        operator.patch(&format!("/merchants/{other}"), json!({ "name": "Quay <Ltd>" })).await.ok();
        let (first, second) = (ada(&app, one, PASSWORD).await, ada(&app, other, PASSWORD).await);
        let stranger = app.user("bob@harbour.example", Role::Operator, None).await;
        let refused = app.send(sign_in_form(ADA, "not this one, no")).await.text();
        assert!(!refused.contains("Quay"), "{refused}");

        let offer = async || {
            let reply = app.send(sign_in_form(ADA, PASSWORD)).await;
            assert_eq!((reply.status, reply.header("set-cookie")), (200, None));
            assert!(reply.text().contains("Quay &#60;Ltd&#62;"), "{}", reply.text());
            field(&reply.text(), "sealed")
        };
        let choose = |sealed: &str, user: UserId| -> Call {
            from_a_page("/console/sign-in/merchant", &[("sealed", sealed), ("user", &user.to_string())])
        };
        let sealed = offer().await;
        for (user, merchant) in [(first, one), (second, other)] {
            let reply = app.send(choose(&sealed, user)).await;
            assert_eq!(home(&app, &reply, user).await, format!("/console/m/{merchant}"));
        }
        assert_eq!(app.send(choose(&sealed, stranger)).await.status, 422, "it was not offered");
        let end = if sealed.ends_with('0') { '1' } else { '0' };
        let forged = format!("{}{end}", &sealed[..sealed.len() - 1]);
        assert_eq!(app.send(choose(&forged, first)).await.status, 422, "forged");
        set_password(&app, first, OTHER).await;
        assert_eq!(app.send(choose(&sealed, first)).await.status, 422, "it has another password now");
        app.advance(TimeDelta::minutes(5));
        assert_eq!(app.send(choose(&sealed, second)).await.status, 422, "too late");
    })
    .await;
}
