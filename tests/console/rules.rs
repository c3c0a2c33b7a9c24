//! Signing in and staying in: cookies, other sites' forms, lockout, time-outs, headers, roles.

use chrono::TimeDelta;
use futures_util::future::join_all;
use tollgate::config::Settings;
use tollgate::domain::admin::Role;
use tollgate::domain::secret::PlainSecret;
use tollgate::flows::manage_users::UserChanges;
use tollgate::flows::principal::Principal;
use tollgate::store::Engine;

use super::people::{PASSWORD, cookie_of, field, from_a_page, sign_in_form};
use crate::support::{Call, TestApp, each_engine, each_engine_with};

const ADA: &str = "ada@harbour.example";
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

#[tokio::test]
async fn the_cookie_is_bound_to_this_host_and_is_another_at_every_sign_in() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let again = app.send(sign_in_form(ADA, PASSWORD)).await;
        let set = again.header("set-cookie").expect("signing in sets the cookie");
        assert!(set.starts_with("__Host-tollgate="), "{set}");
        for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
            assert!(set.contains(attribute), "no {attribute} in {set}");
        }
        assert!(!set.contains("Domain"), "{set}");
        assert_ne!(cookie_of(&again), person.cookie);

        // A session id from the browser is never used for a new session.
        let fixed = "__Host-tollgate=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let reply = app.send(sign_in_form(ADA, PASSWORD).header("cookie", fixed)).await;
        assert_ne!(cookie_of(&reply), fixed);
    })
    .await;
}

#[tokio::test]
async fn the_store_holds_no_cookie() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let secret = PlainSecret::new(person.cookie.split_once('=').expect("a pair").1.to_owned());
        let mut db = app.core().store.read().await.expect("the store answers");
        let (hash,) = db
            .query("select hash from console_sessions")
            .one::<(Vec<u8>,)>()
            .await
            .expect("there is one session");
        assert_eq!(hash, secret.hash().bytes());
    })
    .await;
}

#[tokio::test]
async fn a_form_that_another_site_posts_is_refused() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let form = || {
            let fields = [("once", ""), ("name", "Mallory"), ("gateway", "none")];
            Call::post("/console/merchants").form(&fields).header("cookie", &person.cookie)
        };
        let here = || form().header("host", "gate.example");
        let hostile = [
            form().header("sec-fetch-site", "cross-site"),
            form().header("sec-fetch-site", "same-site"),
            form().header("sec-fetch-site", "none"),
            here().header("origin", "https://evil.example"),
            here().header("origin", "null"),
            here().header("origin", "https://gate.example.evil.example"),
        ];
        for call in hostile {
            let reply = app.send(call).await;
            assert_eq!(reply.status, 403, "{}", reply.text());
        }
        let sign_in = Call::post("/console/sign-in").form(&[("email", ADA), ("password", PASSWORD)]);
        let reply = app.send(sign_in.header("sec-fetch-site", "cross-site")).await;
        assert_eq!(reply.status, 403);
        assert_eq!(reply.header("set-cookie"), None);
        assert_eq!(app.number("select count(*) from merchants").await, 0);

        assert_eq!(app.send(here().header("origin", "https://gate.example")).await.status, 303);
        assert_eq!(app.send(form().header("sec-fetch-site", "same-origin")).await.status, 303);
        assert_eq!(app.number("select count(*) from merchants").await, 2);
    })
    .await;
}

#[tokio::test]
async fn ten_failures_lock_the_account_for_thirty_minutes_however_parallel_they_are() {
    each_engine(async |app| {
        app.user(ADA, Role::Operator, None).await;
        let wrong = || app.send(sign_in_form(ADA, "not this one, no"));
        for _ in 0..2 {
            let replies = join_all((0..13).map(|_| wrong())).await;
            assert!(replies.iter().all(|reply| reply.status == 422));
        }
        app.flush().await;
        let tried = "select count(*) from audit_events where action = 'user.signed_in' \
                     and outcome = 'refused' and detail like '%wrong password%'";
        assert_eq!(app.number(tried).await, 10, "passwords looked at");

        assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.status, 422, "locked");
        app.advance(TimeDelta::minutes(30) - MOMENT);
        assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.status, 422, "locked to the last");
        app.advance(MOMENT);
        assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.status, 303, "open again");
    })
    .await;
}

#[tokio::test]
async fn the_tenth_failure_locks_and_a_success_before_it_starts_the_count_again() {
    each_engine(async |app| {
        app.user(ADA, Role::Operator, None).await;
        for _ in 0..2 {
            for _ in 0..9 {
                assert_eq!(app.send(sign_in_form(ADA, "not this one, no")).await.status, 422);
            }
            assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.status, 303);
        }
    })
    .await;
}

#[tokio::test]
async fn an_address_that_guesses_at_many_accounts_runs_out_of_failures() {
    fn three(settings: &mut tollgate::config::Settings) {
        settings.limits.failures_per_address_per_minute = 3;
    }
    each_engine_with(three, async |app| {
        app.user(ADA, Role::Operator, None).await;
        for email in ["a@x.example", "b@x.example", "c@x.example"] {
            assert_eq!(app.send(sign_in_form(email, PASSWORD).from("203.0.113.7")).await.status, 422);
        }
        let reply = app.send(sign_in_form(ADA, PASSWORD).from("203.0.113.7")).await;
        assert_eq!(reply.status, 429);
        assert!(reply.header("retry-after").is_some());
        assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.status, 303, "from another address");
    })
    .await;
}

#[tokio::test]
async fn every_refused_sign_in_looks_the_same() {
    each_engine(async |app| {
        let id = app.user(ADA, Role::Operator, None).await;
        let unknown = app.send(sign_in_form("eve@harbour.example", PASSWORD)).await;
        let wrong = app.send(sign_in_form(ADA, "not this one, no")).await;
        let expected = wrong.text().replace("ada@", "eve@");
        assert_eq!((unknown.status, unknown.text()), (wrong.status, expected.clone()));

        for _ in 0..10 {
            app.send(sign_in_form(ADA, "not this one, no")).await;
        }
        assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.text().replace("ada@", "eve@"), expected);

        let changes = UserChanges { disabled: Some(true), ..UserChanges::default() };
        let changed = app.core().update_user(&Principal::command_line(), id, None, changes).await;
        changed.expect("it is not refused");
        app.advance(TimeDelta::hours(1));
        assert_eq!(app.send(sign_in_form(ADA, PASSWORD)).await.text().replace("ada@", "eve@"), expected);
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_after_half_an_hour_idle_and_after_twelve_hours_used() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        app.advance(TimeDelta::minutes(30) - MOMENT);
        assert!(app.is_signed_in(&person).await, "just within the idle time-out");
        app.advance(TimeDelta::minutes(30));
        assert!(!app.is_signed_in(&person).await, "idle for half an hour");

        let reply = app.send(sign_in_form(ADA, PASSWORD)).await;
        let person = super::people::Person { cookie: cookie_of(&reply), ..person };
        for _ in 0..24 * 2 - 1 {
            app.advance(TimeDelta::minutes(15));
            assert!(app.is_signed_in(&person).await);
        }
        app.advance(TimeDelta::minutes(15));
        assert!(!app.is_signed_in(&person).await, "signed in for twelve hours");
    })
    .await;
}

#[tokio::test]
async fn signing_out_ends_the_session_in_the_store() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let reply = app.send(person.post("/console/sign-out", &[])).await;
        assert!(reply.header("set-cookie").expect("the cookie is cleared").contains("Max-Age=0"));
        assert!(!app.is_signed_in(&person).await);
        let events = "select count(*) from audit_events where actor_kind = 'user' and outcome = 'done' \
                      and action in ('user.signed_in', 'user.signed_out')";
        assert_eq!(app.number(events).await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_new_password_and_a_disabled_account_end_the_sessions() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let other = app.send(sign_in_form(ADA, PASSWORD)).await;
        let other = super::people::Person { cookie: cookie_of(&other), ..person };

        let new = "three blind mice run";
        let wrong = [("current", "not this one, no"), ("password", new), ("again", new)];
        assert_eq!(app.send(other.post("/console/account/password", &wrong)).await.status, 422);
        let right = [("current", PASSWORD), ("password", new), ("again", new)];
        assert_eq!(app.send(other.post("/console/account/password", &right)).await.status, 303);
        assert!(app.is_signed_in(&other).await, "the one that set it goes on");
        assert_eq!(app.number("select count(*) from console_sessions").await, 1, "the others do not");
        assert_eq!(app.send(sign_in_form(ADA, new)).await.status, 303);

        let changes = UserChanges { disabled: Some(true), ..UserChanges::default() };
        let changed = app.core().update_user(&Principal::command_line(), other.id, None, changes).await;
        changed.expect("it is not refused");
        assert!(!app.is_signed_in(&other).await);
    })
    .await;
}

#[tokio::test]
async fn every_answer_of_the_console_has_a_strict_policy() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let home = app.page(&person, "/console/merchants").await;
        let style = home.split('"').find(|part| part.ends_with(".css")).expect("a stylesheet").to_owned();
        let script = home.split('"').find(|part| part.ends_with(".js")).expect("a script").to_owned();
        for inline in ["<style", "style=\"", "onclick", "<script>"] {
            assert!(!home.contains(inline), "{inline} in a page");
        }
        let paths = ["/console/merchants", "/console/sign-in", "/console/nothing", &style, &script];
        for path in paths {
            let reply = app.send(person.get(path)).await;
            let header = |name: &str| reply.header(name).unwrap_or_default();
            let policy = header("content-security-policy");
            for part in
                ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"]
            {
                assert!(policy.contains(part), "{path}: no {part} in {policy:?}");
            }
            assert!(!policy.contains("unsafe"), "{path}: {policy}");
            assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(header("referrer-policy"), "same-origin", "{path}");
            let caching = if path.contains("/assets/") { "immutable" } else { "no-store" };
            assert!(header("cache-control").contains(caching), "{path}: {:?}", reply.headers);
        }
        assert_eq!(app.send(Call::get("/console/assets/console.css")).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn browsers_that_came_over_tls_are_told_to_stay_there() {
    let hsts = async |configure: fn(&mut Settings)| {
        let app = TestApp::with(Engine::Sqlite, configure).await;
        let header = async |path: &str| app.send(Call::get(path)).await.header("strict-transport-security");
        (header("/console/sign-in").await, header("/api/verify").await)
    };
    let over_tls = hsts(|settings| settings.server.issuer = "https://pay.example".to_owned()).await;
    assert_eq!(over_tls, (Some("max-age=63072000".to_owned()), None));
    assert_eq!(hsts(|_| {}).await, (None, None));
}

#[tokio::test]
async fn an_error_is_a_page_for_a_person_and_json_for_a_program() {
    each_engine(async |app| {
        let person = app.person(ADA, Role::Operator, None).await;
        let reply = app.send(person.get("/console/nothing")).await;
        assert_eq!(reply.status, 404);
        let id = reply.header("x-request-id").expect("every reply has an id");
        assert!(reply.text().contains(&id) && reply.text().starts_with("<!doctype html>"));
        let reply = app.send(Call::get("/console/nothing")).await;
        assert_eq!(reply.json()["error"], "invalid_request");
    })
    .await;
}

#[tokio::test]
async fn whoever_is_not_signed_in_is_sent_to_sign_in_and_from_there_back() {
    each_engine(async |app| {
        app.user(ADA, Role::Operator, None).await;
        let reply = app.send(Call::get("/console/health?x=1")).await;
        let to = reply.header("location").expect("a redirect");
        let form = app.send(Call::get(&to)).await.text();
        let next = field(&form, "next");
        assert_eq!(next, "/console/health?x=1");

        for (next, expected) in [
            ("/console/health?x=1", "/console/health?x=1"),
            ("https://evil.example/", "/console"),
            ("//evil.example/console/", "/console"),
            ("/console/\\evil", "/console"),
        ] {
            let fields = [("email", ADA), ("password", PASSWORD), ("next", next)];
            let reply = app.send(from_a_page("/console/sign-in", &fields)).await;
            let to = reply.header("location").expect("a redirect");
            let welcome = Call::get(&to).header("cookie", cookie_of(&reply));
            assert_eq!(app.send(welcome).await.header("location").as_deref(), Some(expected));
        }
    })
    .await;
}

#[tokio::test]
async fn another_merchant_does_not_exist_and_a_viewer_only_looks() {
    each_engine(async |app| {
        let own = app.merchant().await;
        let other = app.merchant().await;
        let admin = app.person(ADA, Role::MerchantAdmin, Some(own.id)).await;
        let viewer = app.person("vic@harbour.example", Role::MerchantViewer, Some(own.id)).await;
        let operator = app.person("ops@gate.example", Role::Operator, None).await;

        let screens = [
            "",
            "/api-keys",
            "/api-details",
            "/webhooks",
            "/sessions",
            "/audit",
            "/audit.csv",
            "/people",
            "/account",
        ];
        for screen in screens {
            let (ours, theirs) =
                (format!("/console/m/{}{screen}", own.id), format!("/console/m/{}{screen}", other.id));
            for (person, status) in [(&admin, 404), (&viewer, 404), (&operator, 200)] {
                assert_eq!(app.send(person.get(&ours)).await.status, 200, "{} {screen}", person.email);
                assert_eq!(app.send(person.get(&theirs)).await.status, status, "{} {screen}", person.email);
            }
        }
        // A key of one merchant under the path of another is not there, not even for an operator.
        let crossed = format!("/console/m/{}/api-keys/{}", own.id, other.key_id);
        assert_eq!(app.send(operator.get(&crossed)).await.status, 404);

        let revoke = format!("/console/m/{}/api-keys/{}/revoke", own.id, own.key_id);
        assert_eq!(app.send(viewer.post(&revoke, &[])).await.status, 403);
        let foreign = format!("/console/m/{}/api-keys/{}/revoke", other.id, other.key_id);
        assert_eq!(app.send(admin.post(&foreign, &[])).await.status, 404);
        assert_eq!(app.number("select count(*) from api_keys where revoked_at is not null").await, 0);
        for path in ["/console/merchants", "/console/health", "/console/people", "/console/audit"] {
            assert_eq!(app.send(admin.get(path)).await.status, 403, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_one_time_link_signs_in_once_within_its_hour_and_not_by_being_looked_at() {
    each_engine(async |app| {
        let id = app.user(ADA, Role::Operator, None).await;
        let link = async || {
            let link = app.core().make_sign_in_link(&Principal::command_line(), id).await;
            link.expect("it is not refused").expose().to_owned()
        };
        let used = |token: &str| from_a_page("/console/once", &[("token", token)]);

        let token = link().await;
        let looked = app.send(Call::get(&format!("/console/once?token={token}"))).await;
        assert_eq!((looked.status, looked.header("set-cookie")), (200, None));
        let reply = app.send(used(&token)).await;
        assert_eq!(reply.status, 303);
        let person = super::people::Person { id, email: ADA, cookie: cookie_of(&reply) };
        assert_eq!(app.send(used(&token)).await.status, 422, "a second time");

        // The link replaces the password that the user does not know.
        let set = [("password", "three blind mice run"), ("again", "three blind mice run")];
        assert_eq!(app.send(person.post("/console/account/password", &set)).await.status, 303);
        assert_eq!(app.send(person.post("/console/account/password", &set)).await.status, 422, "but once");

        let late = link().await;
        app.advance(TimeDelta::hours(1));
        assert_eq!(app.send(used(&late)).await.status, 422, "an hour later");
        let replaced = link().await;
        link().await;
        assert_eq!(app.send(used(&replaced)).await.status, 422, "after a newer one");
    })
    .await;
}
