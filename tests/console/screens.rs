//! The texts and actions of the screens.

use tollgate::domain::admin::Role;
use tollgate::domain::licence::{Licence, Product};

use super::people::field;
use crate::support::merchant::plain_key;
use crate::support::{TestApp, each_engine};

const ADA: &str = "ada@harbour.example";

const NEW_KEY: [(&str, &str); 4] = [
    ("name", "Web shop"),
    ("environment", "sandbox"),
    ("ip_mode", "enforce"),
    ("webhook_format", "single_json"),
];

#[tokio::test]
async fn a_form_sent_twice_makes_one_key_and_shows_the_same_secret() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("/console/m/{}/api-keys", merchant.id);
        let once = field(&app.page(&person, &format!("{path}/new")).await, "once");
        let fields = [&NEW_KEY[..], &[("once", once.as_str())]].concat();
        let secret = |page: String| page.split("id=\"new-key\"").nth(1).map(|rest| rest[..200].to_owned());
        let first = secret(app.send(person.post(&path, &fields)).await.text()).expect("the key is shown");
        let again = secret(app.send(person.post(&path, &fields)).await.text()).expect("the key is shown");
        assert_eq!(first, again);
        assert_eq!(app.number("select count(*) from api_keys where name = 'Web shop'").await, 1);
        assert!(!app.page(&person, &path).await.contains("new-key"), "shown again");
    })
    .await;
}

#[tokio::test]
async fn the_second_output_type_is_for_worldpay_corporate_and_the_form_says_why() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("/console/m/{}/api-keys", merchant.id);
        let form = app.page(&person, &format!("{path}/new")).await;
        assert!(form.contains("for accounts on the Worldpay Corporate gateway only"), "{form}");
        let radio = form.split("value=\"multiple_json\"").nth(1).expect("it is there all the same");
        assert!(radio[..40].contains("disabled"), "it can be chosen");
        let mut fields = NEW_KEY;
        fields[3].1 = "multiple_json";
        assert_eq!(app.send(person.post(&path, &fields)).await.status, 422);
    })
    .await;
}

#[tokio::test]
async fn a_denial_says_why_in_a_sentence_and_a_button_adds_the_address() {
    fn through_a_proxy(settings: &mut tollgate::config::Settings) {
        settings.server.edge.trusted_proxies = vec!["10.0.0.0/8".parse().expect("a network")];
    }
    crate::support::each_engine_with(through_a_proxy, async |app| {
        let mut key = plain_key();
        key.allowed_ips = vec!["198.51.100.0/24".to_owned()];
        let merchant = app.merchant_with(key).await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let call = || merchant.authorize().from("10.0.0.2").header("x-forwarded-for", "203.0.113.7");
        let denied = app.send(call()).await;
        assert_eq!(denied.status, 401);
        app.flush().await;

        let id = denied.header("x-request-id").expect("every reply has an id");
        let path = format!("/console/m/{}/api-details", merchant.id);
        let page = app.page(&person, &format!("{path}?request_id={id}")).await;
        let why = "203.0.113.7 is not in this key&#39;s allowed addresses; the call came through 10.0.0.2.";
        assert!(page.contains(why), "{page}");
        assert!(app.page(&person, &format!("{path}?request_id=other")).await.contains("No matching calls"));

        let fields = [("key", field(&page, "key")), ("address", field(&page, "address"))];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(app.send(person.post(&format!("{path}/allow"), &fields)).await.status, 303);
        assert_eq!(app.send(call()).await.status, 200);
    })
    .await;
}

/// The lines of the trail as a spreadsheet would read them.
async fn trail(app: &TestApp, person: &super::people::Person, merchant: &crate::support::Merchant) -> String {
    app.page(person, &format!("/console/m/{}/audit.csv", merchant.id)).await
}

#[tokio::test]
async fn the_audit_trail_as_csv_holds_no_formula() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person("=cmd@harbour.example", Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("/console/m/{}/api-keys", merchant.id);
        let mut fields = NEW_KEY;
        fields[0].1 = "=HYPERLINK(\"https://evil.example\")";
        assert_eq!(app.send(person.post(&path, &fields)).await.status, 200);
        let csv = trail(&app, &person, &merchant).await;
        assert!(csv.contains("\"'=cmd@harbour.example\""), "{csv}");
        for line in csv.lines() {
            let is_formula =
                |field: &str| field.trim_start_matches('"').starts_with(['=', '+', '-', '@', '\t']);
            assert!(!line.split("\",\"").any(is_formula), "{line}");
        }
        assert!(csv.lines().count() > 5 && csv.contains("api_key.created"));
    })
    .await;
}

#[tokio::test]
async fn a_name_is_text_on_every_page() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let base = format!("/console/m/{}", merchant.id);
        let mut fields = NEW_KEY;
        fields[0].1 = "<script>alert(1)</script>\"'";
        let shown = app.send(person.post(&format!("{base}/api-keys"), &fields)).await;
        assert_eq!(shown.status, 200);
        for page in [
            shown.text(),
            app.page(&person, &base).await,
            app.page(&person, &format!("{base}/api-keys")).await,
            app.page(&person, &format!("{base}/audit")).await,
        ] {
            assert!(!page.contains("<script>alert"), "{page}");
        }
    })
    .await;
}

#[tokio::test]
async fn ending_a_session_ends_its_tokens() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let tokens = app.tokens(&merchant).await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let page = app.page(&person, &format!("/console/m/{}/sessions", merchant.id)).await;
        let end =
            page.split("href=\"").find_map(|rest| rest.split('"').next().filter(|to| to.ends_with("/end")));
        assert_eq!(app.send(person.post(end.expect("there is End"), &[])).await.status, 303);
        assert_eq!(app.send(merchant.refresh(&tokens.refresh)).await.status, 400);
    })
    .await;
}

#[tokio::test]
async fn the_overview_counts_what_happened() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let tokens = app.tokens(&merchant).await;
        app.tokens(&merchant).await;
        app.send(merchant.refresh(&tokens.refresh)).await.tokens();
        app.send(merchant.refresh("junk")).await.refused(400, "invalid_grant");
        app.flush().await;
        for period in ["hour", "day", "month"] {
            let page = app.page(&person, &format!("/console/m/{}?period={period}", merchant.id)).await;
            let numbers: Vec<&str> =
                page.split("figure-number\">").skip(1).filter_map(|rest| rest.split('<').next()).collect();
            assert_eq!(numbers[..3], ["2", "1", "1"], "{period}");
            assert!(page.contains("The token is unknown or was altered."), "{period}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_webhook_sent_can_be_sent_again() {
    each_engine(async |app| {
        let mut key = plain_key();
        key.webhook_url = Some("https://receiver.example/hooks".to_owned());
        let merchant = app.merchant_with(key).await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("/console/m/{}/webhooks", merchant.id);
        let page = app.page(&person, &path).await;
        assert!(
            page.contains("api_key.created") && page.contains("https://receiver.example/hooks"),
            "{page}"
        );
        assert!(app.page(&person, &format!("{path}?state=failed")).await.contains("No matching webhooks"));
        let resend = page.split("action=\"").filter_map(|rest| rest.split('"').next());
        let resend = resend.filter(|to| to.ends_with("/resend")).last().expect("there is Resend");
        assert_eq!(app.send(person.post(resend, &[])).await.status, 303);
        let sent = "select count(*) from audit_events where action = 'webhook_delivery.redelivered' \
                    and actor_kind = 'user'";
        assert_eq!(app.number(sent).await, 1);
    })
    .await;
}

#[tokio::test]
async fn the_first_webhook_url_of_a_key_shows_its_secret_once() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let path = format!("/console/m/{}/api-keys/{}", merchant.id, merchant.key_id);
        let save = async |page: &str| {
            let version = field(page, "version");
            let fields =
                [&NEW_KEY[..], &[("webhook_url", "https://receiver.example/h"), ("version", &version)]];
            app.send(person.post(&path, &fields.concat())).await
        };
        let before = app.page(&person, &path).await;
        let saved = save(&before).await;
        assert_eq!(saved.status, 200, "{}", saved.text());
        assert!(saved.text().contains("whsec_"));
        assert!(!app.page(&person, &path).await.contains("whsec_"), "shown again");
        // The form is from an older version, so nothing is overwritten.
        assert_eq!(save(&before).await.status, 422);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_starts_sessions_where_it_should_refresh_is_named() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let overview = format!("/console/m/{}", merchant.id);
        for _ in 0..59 {
            app.tokens(&merchant).await;
        }
        app.flush().await;
        let warning = "started 60 sessions within the last hour";
        assert!(!app.page(&person, &overview).await.contains("should keep its refresh token"));
        app.tokens(&merchant).await;
        app.flush().await;
        assert!(app.page(&person, &overview).await.contains(warning));
        app.advance(chrono::TimeDelta::minutes(61));
        let person = super::people::Person { cookie: app.cookie_again(ADA).await, ..person };
        assert!(!app.page(&person, &overview).await.contains(warning), "an hour later");
    })
    .await;
}

#[tokio::test]
async fn an_operator_makes_a_merchant_and_its_licences_decide() {
    each_engine(async |app| {
        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        let once = field(&app.page(&operator, "/console/merchants").await, "once");
        let fields = [("once", once.as_str()), ("name", "Harbour Books"), ("gateway", "demo")];
        assert_eq!(app.send(operator.post("/console/merchants", &fields)).await.status, 303);
        let page = app.page(&operator, "/console/merchants").await;
        let id =
            page.split("/console/m/").nth(1).and_then(|rest| rest.split('"').next()).expect("it is listed");

        let keys = format!("/console/m/{id}/api-keys");
        assert_eq!(app.send(operator.post(&keys, &NEW_KEY)).await.status, 422, "no licence");
        let grant = [("active", "true"), ("expires_on", "2027-01-31")];
        let licence = format!("/console/m/{id}/account/licences/api_keys");
        assert_eq!(app.send(operator.post(&licence, &grant)).await.status, 303);
        assert_eq!(app.send(operator.post(&keys, &NEW_KEY)).await.status, 200);
        // It still works on its last day.
        let end = "select expires_at / 1000000 from licences";
        assert_eq!(app.number(end).await, 1_801_440_000);
    })
    .await;
}

#[tokio::test]
async fn a_lapsed_licence_is_said_where_keys_are_made() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        app.put_licence(merchant.id, Product::ApiKeys, Licence { active: false, expires_at: None }).await;
        let page = app.page(&person, &format!("/console/m/{}/api-keys", merchant.id)).await;
        assert!(page.contains("no active licence") && !page.contains("/api-keys/new"));
    })
    .await;
}

#[tokio::test]
async fn the_overview_equals_a_count_of_the_calls_and_a_denial_leads_to_exactly_those() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let person = app.person(ADA, Role::MerchantAdmin, Some(merchant.id)).await;
        let mut tokens = app.tokens(&merchant).await;
        for _ in 0..3 {
            // A renewal, on any path.
            let fields = merchant.fields(&[("refresh_token", &tokens.refresh)]);
            tokens = app.send(merchant.call().form(&fields)).await.tokens();
        }
        for _ in 0..2 {
            app.send(merchant.refresh("junk")).await.refused(400, "invalid_grant");
        }
        let wrong = merchant.call().form(&[("client_id", &merchant.client_id), ("client_secret", "wrong")]);
        app.send(wrong).await.refused(401, "invalid_client");
        app.flush().await;

        let calls = app.number("select count(*) from exchanges").await;
        assert_eq!(app.number("select cast(sum(calls) as bigint) from call_counts").await, calls);
        let base = format!("/console/m/{}", merchant.id);
        for period in ["hour", "day", "month"] {
            let page = app.page(&person, &format!("{base}?period={period}")).await;
            let numbers: Vec<&str> =
                page.split("figure-number\">").skip(1).filter_map(|rest| rest.split('<').next()).collect();
            assert_eq!(numbers[..3], ["1", "3", "3"], "{period}");
            assert!(
                page.contains("<title>") && page.contains("UTC: 1 issued, 3 refreshed</title>"),
                "{page}"
            );
            let hrefs: Vec<String> = page
                .split("href=\"")
                .filter_map(|rest| rest.split('"').next())
                .filter(|to| to.contains("denied="))
                .map(|to| to.replace("&#38;", "&"))
                .collect();
            let mut listed = Vec::new();
            for href in &hrefs {
                listed.push(app.page(&person, href).await.matches("<td data-label=\"Status\">").count());
            }
            assert_eq!(listed, [3, 2, 1], "{period}: {hrefs:?}");
        }
        let from = |address: &str| format!("{base}/api-details?client_ip={address}");
        assert!(app.page(&person, &from("192.0.2.99")).await.contains("No matching calls"));
    })
    .await;
}

#[tokio::test]
async fn keys_and_merchants_are_found_by_a_part_of_their_name() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let other = crate::support::merchant::plain_key();
        app.key_of(
            merchant.id,
            tollgate::flows::manage_keys::NewApiKey { name: "Till 100%_xÄ".to_owned(), ..other },
        )
        .await;
        let operator = app.person("ops@gate.example", Role::Operator, None).await;
        let keys = async |q: &str| {
            let page = app.page(&operator, &format!("/console/m/{}/api-keys?q={q}", merchant.id)).await;
            page.matches("<th scope=\"row\"").count()
        };
        for (q, found) in
            [("", 2), ("TILL", 2), ("100%25_", 1), ("%25", 1), ("_", 1), ("x%C3%84", 1), ("nothing", 0)]
        {
            assert_eq!(keys(q).await, found, "{q}");
        }
        let merchants = async |q: &str| {
            app.page(&operator, &format!("/console/merchants?q={q}"))
                .await
                .matches("<th scope=\"row\"")
                .count()
        };
        assert_eq!((merchants("corner").await, merchants("none").await), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_viewer_sees_the_settings_of_a_key_as_text() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let viewer = app.person(ADA, Role::MerchantViewer, Some(merchant.id)).await;
        let keys = format!("/console/m/{}/api-keys", merchant.id);
        let client = format!("{}/tokens/{}", merchant.key_id, merchant.client_id);
        for path in [
            "/new".to_owned(),
            format!("/{}/revoke", merchant.key_id),
            format!("/{}/rotate", merchant.key_id),
            format!("/{}/webhook-secret", merchant.key_id),
            format!("/{client}/scopes"),
            format!("/{client}/rotate"),
            format!("/{client}/switch-off"),
        ] {
            assert_eq!(app.send(viewer.get(&format!("{keys}{path}"))).await.status, 403, "{path}");
        }
        for path in [format!("/{}", merchant.key_id), format!("/{}/tokens", merchant.key_id)] {
            let page = app.page(&viewer, &format!("/console/m/{}/api-keys{path}", merchant.id)).await;
            let main = page.split("<main").nth(1).expect("there is a page");
            for dead in ["<input id=", "<textarea", "disabled>", "type=\"submit\""] {
                assert!(!main.contains(dead), "{dead} on {path}: {main}");
            }
        }
    })
    .await;
}
