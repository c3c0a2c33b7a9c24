//! The authenticator app: setting it up, using it, refusing a used code, and recovery codes.

use chrono::TimeDelta;
use tollgate::config::Settings;
use tollgate::domain::admin::Role;
use tollgate::domain::api_key::Environment;
use tollgate::domain::console::TotpSecret;
use tollgate::domain::keyring::Purpose;
use tollgate::domain::secret::PlainSecret;
use tollgate::flows::error::{Error, Refused};
use tollgate::flows::manage_keys::ApiKeyChanges;
use tollgate::flows::manage_users::UserChanges;
use tollgate::flows::principal::Principal;
use zeroize::Zeroizing;

use super::people::{PASSWORD, Person, cookie_of, field, from_a_page, sign_in_form};
use crate::support::merchant::{done, plain_key};
use crate::support::{Reply, TestApp, each_engine, each_engine_with};

const ADA: &str = "ada@harbour.example";

/// What an authenticator app would show, from the secret that it was given.
fn code(secret: &[u8], app: &TestApp) -> String {
    let secret = totp_rs::Secret::new(secret.into());
    let totp = totp_rs::Builder::new().with_secret(secret).build().expect("the defaults are compliant");
    let now = u64::try_from(app.now().unix_secs()).expect("the tests' time is after 1970");
    totp.generate(now).to_string()
}

/// Sets a second factor up; returns its secret and the recovery codes.
async fn set_up(app: &TestApp, person: &Person) -> (Vec<u8>, Vec<String>) {
    let page = app.page(person, "/console/account/second-factor").await;
    assert!(page.contains("<svg") && page.contains("QR code"), "no QR code");
    let sealed = field(&page, "sealed");
    let bytes = hex::decode(&sealed).expect("it is hex");
    let opened = app.core().keyring.open(Purpose::TotpSecret, person.id.uuid().as_bytes(), &bytes);
    let secret = opened.expect("it was sealed for this user").to_vec();
    let shown: String =
        page.split("totp-secret\">").nth(1).expect("the key is shown").chars().take(39).collect();
    let typed = TotpSecret::from_bytes(Zeroizing::new(secret.clone())).to_base32();
    assert_eq!(shown.replace(' ', ""), typed.expose());

    let path = "/console/account/second-factor";
    let wrong =
        app.send(person.post(path, &[("sealed", &sealed), ("code", "000000"), ("password", PASSWORD)])).await;
    assert_eq!(wrong.status, 422);
    let right = [("sealed", sealed.as_str()), ("code", &code(&secret, app)), ("password", PASSWORD)];
    let reply = app.send(person.post(path, &right)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    let codes = text.split("<li><code>").skip(1).filter_map(|rest| rest.split('<').next());
    (secret, codes.map(str::to_owned).collect())
}

async fn second_step(app: &TestApp, code: &str) -> Reply {
    let first = app.send(sign_in_form(ADA, PASSWORD)).await;
    assert!(first.header("location").is_some_and(|to| to.starts_with("/console/sign-in/code")));
    let half = Person { id: app.user_id(), email: ADA, cookie: cookie_of(&first) };
    assert!(!app.is_signed_in(&half).await, "the password alone is enough");
    app.send(half.post("/console/sign-in/code", &[("code", code)])).await
}

impl TestApp {
    /// An id of nobody, where only the cookie counts.
    fn user_id(&self) -> tollgate::domain::ids::UserId {
        tollgate::domain::ids::UserId::generate(self.now(), &tollgate::domain::entropy::Entropy::System)
    }
}

#[tokio::test]
async fn signing_in_takes_a_code_that_works_once() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (secret, codes) = set_up(&app, &person).await;
        assert_eq!(codes.len(), 10);

        assert_eq!(second_step(&app, &code(&secret, &app)).await.status, 422, "the code of the set-up again");
        app.advance(TimeDelta::seconds(30));
        let now = code(&secret, &app);
        let reply = second_step(&app, &now).await;
        assert_eq!(reply.status, 303);
        let signed_in = Person { cookie: cookie_of(&reply), ..person };
        assert!(app.is_signed_in(&signed_in).await);
        assert_eq!(second_step(&app, &now).await.status, 422, "a code that was used");
    })
    .await;
}

#[tokio::test]
async fn a_recovery_code_works_once_however_it_is_typed() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (_, codes) = set_up(&app, &person).await;
        let typed = codes[3].to_uppercase().replace('-', " ");
        assert_eq!(second_step(&app, &typed).await.status, 303);
        assert_eq!(second_step(&app, &codes[3]).await.status, 422, "a second time");
        assert_eq!(second_step(&app, &codes[4]).await.status, 303);
        assert_eq!(app.number("select count(*) from recovery_codes where used_at is null").await, 8);
    })
    .await;
}

#[tokio::test]
async fn wrong_codes_lock_the_second_step_although_the_password_is_right_each_time() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (secret, _) = set_up(&app, &person).await;
        app.advance(TimeDelta::seconds(30));
        for _ in 0..10 {
            assert_eq!(second_step(&app, "123456x").await.status, 422);
        }
        assert_eq!(second_step(&app, &code(&secret, &app)).await.status, 422, "locked");
        app.advance(TimeDelta::minutes(30));
        assert_eq!(second_step(&app, &code(&secret, &app)).await.status, 303);
    })
    .await;
}

#[tokio::test]
async fn a_link_or_a_new_password_is_the_way_back_after_a_strangers_guesses_and_takes_the_code_too() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (secret, _) = set_up(&app, &person).await;
        let lock = async || {
            for _ in 0..11 {
                app.send(sign_in_form(ADA, "a stranger's guess")).await;
            }
            assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.status, 422, "locked");
        };
        lock().await;
        let by = Principal::command_line();
        let link = done(app.core().make_sign_in_link(&by, person.id).await);
        let first = app.send(from_a_page("/console/once", &[("token", link.expose())])).await;
        assert!(first.header("location").is_some_and(|to| to.starts_with("/console/sign-in/code")));
        // The stranger continues between the two steps.
        lock().await;
        let half = Person { cookie: cookie_of(&first), ..person };
        assert_eq!(app.send(half.post("/console/sign-in/code", &[("code", "123456x")])).await.status, 422);
        app.advance(TimeDelta::seconds(30));
        let right = code(&secret, &app);
        assert_eq!(app.send(half.post("/console/sign-in/code", &[("code", &right)])).await.status, 303);

        lock().await;
        let new = "three blind mice run";
        let changes =
            UserChanges { password: Some(PlainSecret::new(new.to_owned())), ..UserChanges::default() };
        done(app.core().update_user(&by, half.id, None, changes).await);
        let first = app.send(sign_in_form(ADA, new)).await;
        assert!(first.header("location").is_some_and(|to| to.starts_with("/console/sign-in/code")));
    })
    .await;
}

#[tokio::test]
async fn without_the_factor_that_live_keys_take_nothing_that_makes_a_live_secret_is_allowed() {
    fn required(settings: &mut Settings) {
        settings.console.totp_required_for_live = true;
    }
    each_engine_with(required, async |app| {
        let mut live = plain_key();
        live.environment = Environment::Live;
        let merchant = app.merchant_with(live).await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let base = format!("/console/m/{}", merchant.id);
        let once = "b".repeat(32);
        let rotate = format!("{base}/api-keys/{}/tokens/{}/rotate", merchant.key_id, merchant.client_id);
        let another = "c".repeat(32);
        let token = [("once", another.as_str()), ("name", "t"), ("role", "merchant_admin")];
        let secrets = "select count(*) from secrets";
        let before = app.number(secrets).await;
        let fields = [("once", once.as_str()), ("overlap_secs", "0")];
        let settings = format!("{base}/api-keys/{}", merchant.key_id);
        let hooked = [
            ("name", "Web shop"),
            ("environment", "live"),
            ("ip_mode", "enforce"),
            ("webhook_format", "single_json"),
            ("webhook_url", "https://203.0.114.7/hook"),
            ("version", "1"),
        ];
        let webhook_secrets = "select count(*) from webhook_secrets";
        let refused = app.send(person.post(&settings, &hooked)).await;
        assert_eq!(refused.status, 422);
        assert!(refused.text().contains("need a second factor"));
        assert_eq!(app.number("select count(*) from api_keys where webhook_url is not null").await, 0);
        assert_ne!(app.send(person.post(&rotate, &fields)).await.status, 200);
        assert_eq!(app.number(secrets).await, before);
        assert_eq!(app.send(person.post(&format!("{base}/people/tokens"), &token)).await.status, 422);
        assert_eq!(app.number("select count(*) from admin_tokens").await, 0);
        assert_eq!(app.number(webhook_secrets).await, 0);
        let user = [("once", "d"), ("email", "b@x.example"), ("role", "merchant_admin")];
        assert_eq!(app.send(person.post(&format!("{base}/people/users"), &user)).await.status, 422);
        let link = format!("{base}/people/users/{}/link", person.id);
        assert_ne!(app.send(person.post(&link, &[])).await.status, 200);
        assert_eq!(app.number("select count(*) from users").await, 1);
        assert_eq!(app.number("select count(*) from sign_in_links").await, 0);

        let path = "/console/account/second-factor";
        let sealed = field(&app.page(&person, path).await, "sealed");
        let bytes = hex::decode(&sealed).expect("it is hex");
        let opened = app.core().keyring.open(Purpose::TotpSecret, person.id.uuid().as_bytes(), &bytes);
        let right = code(&opened.expect("it was sealed for this user"), &app);
        for password in ["", "not this one, no"] {
            let fields = [("sealed", sealed.as_str()), ("code", &right), ("password", password)];
            assert_eq!(app.send(person.post(path, &fields)).await.status, 422, "without the password");
        }
        set_up(&app, &person).await;
        assert_eq!(app.send(person.post(&rotate, &fields)).await.status, 200);
        assert_eq!(app.send(person.post(&format!("{base}/people/tokens"), &token)).await.status, 200);
        assert_eq!(app.send(person.post(&settings, &hooked)).await.status, 200);
        assert_eq!(app.number(webhook_secrets).await, 1);
        let rotation = async |by: Principal| app.core().rotate_webhook_secret(&by, merchant.key_id, 0).await;
        let lacking = Principal { lacks_second_factor: true, ..Principal::command_line() };
        assert!(matches!(rotation(lacking).await, Err(Error::Refused(Refused::Forbidden(_)))));
        assert!(rotation(Principal::command_line()).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn without_the_factor_that_live_keys_take_their_webhooks_stay_where_they_are() {
    each_engine(async |app| {
        let mut live = plain_key();
        live.environment = Environment::Live;
        let merchant = app.merchant_with(live).await;
        let by = Principal::command_line();
        let lacking = Principal { lacks_second_factor: true, ..by.clone() };
        let redirect = async |by: &Principal, url: Option<&str>| {
            let changes =
                ApiKeyChanges { webhook_url: Some(url.map(str::to_owned)), ..ApiKeyChanges::default() };
            app.core().update_api_key(by, merchant.key_id, None, changes).await
        };
        let (here, elsewhere) = (Some("https://203.0.114.7/hook"), Some("https://203.0.114.8/hook"));
        redirect(&by, here).await.expect("it is not refused");
        for url in [elsewhere, None] {
            assert!(
                matches!(redirect(&lacking, url).await, Err(Error::Refused(Refused::Forbidden(_)))),
                "{url:?}"
            );
        }
        redirect(&lacking, here).await.expect("nothing moves");
        redirect(&by, elsewhere).await.expect("it is not refused");
    })
    .await;
}

#[tokio::test]
async fn the_second_step_has_five_minutes_and_a_session_of_its_own() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (secret, _) = set_up(&app, &person).await;
        app.advance(TimeDelta::seconds(30));
        let first = app.send(sign_in_form(ADA, PASSWORD)).await;
        let half = cookie_of(&first);
        app.advance(TimeDelta::minutes(5));
        let form =
            |code: &str| from_a_page("/console/sign-in/code", &[("code", code)]).header("cookie", &half);
        assert_eq!(app.send(form(&code(&secret, &app))).await.status, 422, "five minutes later");

        let first = cookie_of(&app.send(sign_in_form(ADA, PASSWORD)).await);
        let form = from_a_page("/console/sign-in/code", &[("code", &code(&secret, &app))]);
        let reply = app.send(form.header("cookie", &first)).await;
        assert_ne!(cookie_of(&reply), first, "the id known before the second factor goes on");
    })
    .await;
}

#[tokio::test]
async fn a_form_is_kept_over_both_steps_of_a_sign_in() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (secret, _) = set_up(&app, &person).await;
        app.advance(TimeDelta::hours(13));
        let asked =
            app.send(person.post("/console/merchants", &[("name", "Quay"), ("gateway", "demo")])).await;
        let kept = field(&asked.text(), "form");
        let form = [("email", ADA), ("password", PASSWORD), ("form", &kept)];
        let first = app.send(from_a_page("/console/sign-in", &form)).await;
        let half = Person { cookie: cookie_of(&first), ..person };
        let kept = field(&first.text(), "form");
        let code = code(&secret, &app);
        let form = [("code", code.as_str()), ("form", &kept)];
        let page = app.send(half.post("/console/sign-in/code", &form)).await.text();
        assert!(page.contains("action=\"/console/merchants\"") && page.contains("value=\"Quay\""), "{page}");
        assert_eq!(app.number("select count(*) from merchants").await, 0);
    })
    .await;
}

#[tokio::test]
async fn it_takes_a_code_to_remove_the_second_factor() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (secret, _) = set_up(&app, &person).await;
        app.advance(TimeDelta::seconds(30));
        let path = "/console/account/second-factor/remove";
        let question = app.page(&person, path).await;
        assert!(question.contains("<dt>Recovery codes left</dt><dd>10</dd>"), "{question}");
        let wrong = app.send(person.post(path, &[("code", "000000")])).await;
        assert!(wrong.status == 422 && wrong.text().contains("id=\"code-mistake\""), "{}", wrong.text());
        assert_eq!(app.send(person.post(path, &[("code", &code(&secret, &app))])).await.status, 303);
        let reply = app.send(sign_in_form(ADA, PASSWORD)).await;
        assert!(reply.header("location").is_some_and(|to| to.starts_with("/console/welcome")));
    })
    .await;
}

#[tokio::test]
async fn codes_cannot_be_guessed_from_within_a_session() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (secret, _) = set_up(&app, &person).await;
        app.advance(TimeDelta::seconds(30));
        let path = "/console/account/second-factor/remove";
        for _ in 0..10 {
            assert_eq!(app.send(person.post(path, &[("code", "123456x")])).await.status, 422);
        }
        assert_eq!(app.send(person.post(path, &[("code", &code(&secret, &app))])).await.status, 422);
        assert_eq!(app.number("select count(*) from users where totp_secret is not null").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_one_time_link_stands_in_for_the_password_alone() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let (secret, _) = set_up(&app, &person).await;
        app.advance(TimeDelta::seconds(30));
        let link = app.core().make_sign_in_link(&Principal::command_line(), person.id).await;
        let link = link.expect("it is not refused");
        let reply = app.send(from_a_page("/console/once", &[("token", link.expose())])).await;
        let half = Person { cookie: cookie_of(&reply), ..person };
        assert!(!app.is_signed_in(&half).await, "the link alone is enough");
        let reply = app.send(half.post("/console/sign-in/code", &[("code", &code(&secret, &app))])).await;
        let whole = Person { cookie: cookie_of(&reply), ..half };
        assert!(app.is_signed_in(&whole).await);
        let set = [("password", "three blind mice run"), ("again", "three blind mice run")];
        assert_eq!(app.send(whole.post("/console/account/password", &set)).await.status, 303);
    })
    .await;
}

#[tokio::test]
async fn live_keys_take_a_second_factor_where_the_settings_say_so() {
    each_engine_with(
        |settings| settings.console.totp_required_for_live = true,
        async |app| {
            let merchant = app.merchant().await;
            let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
            let path = format!("/console/m/{}/api-keys", merchant.id);
            let key = |environment: &'static str| {
                [
                    ("name", "Web shop"),
                    ("environment", environment),
                    ("ip_mode", "enforce"),
                    ("webhook_format", "single_json"),
                ]
            };
            let refused = app.send(person.post(&path, &key("live"))).await;
            assert_eq!(refused.status, 422);
            assert!(refused.text().contains("need a second factor"));
            assert_eq!(app.send(person.post(&path, &key("sandbox"))).await.status, 200);
            set_up(&app, &person).await;
            assert_eq!(app.send(person.post(&path, &key("live"))).await.status, 200);
        },
    )
    .await;
}

#[tokio::test]
async fn removing_another_users_factor_asks_first_and_says_what_it_means() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        set_up(&app, &person).await;
        let admin = app.person("bea@harbour.example", Role::MerchantAdmin, Some(merchant.id)).await;
        let viewer = app.person("vic@harbour.example", Role::MerchantViewer, Some(merchant.id)).await;
        let base = format!("/console/m/{}/people", merchant.id);
        let path = format!("{base}/users/{}/remove-factor", person.id);
        let has_factor =
            async || app.number("select count(*) from users where totp_secret is not null").await;

        assert!(app.page(&admin, &base).await.contains(&path));
        let question = app.page(&admin, &path).await;
        for part in [ADA, "with the password alone", "recovery codes stop working", "Last sign-in"] {
            assert!(question.contains(part), "no {part} in {question}");
        }
        assert_eq!(has_factor().await, 1, "asking removes nothing");
        let stranger = app.merchant().await;
        let eve = app.person("eve@harbour.example", Role::MerchantAdmin, Some(stranger.id)).await;
        let crossed = path.replace(&merchant.id.to_string(), &stranger.id.to_string());
        for call in [eve.get(&crossed), eve.post(&crossed, &[]), viewer.get(&path), viewer.post(&path, &[])] {
            let status = app.send(call).await.status;
            assert!(status == 403 || status == 404, "{status}");
        }
        assert_eq!(has_factor().await, 1);

        let done = app.send(admin.post(&path, &[])).await;
        assert_eq!(done.status, 303, "{}", done.text());
        let after = app.page(&admin, &done.header("location").expect("a redirect")).await;
        assert!(after.contains("The second factor was removed") && !after.contains(&path), "{after}");
        assert_eq!(has_factor().await, 0);
        assert_eq!(app.send(admin.get(&path)).await.status, 409, "there is nothing to ask any more");
    })
    .await;
}
