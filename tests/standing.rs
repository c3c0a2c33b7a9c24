//! What a call depends on (lifetimes, licences, the switch, the merchant, the key), and when each of them
//! ends.

use chrono::TimeDelta;
use tollgate::domain::licence::{Licence, Product};
use tollgate::domain::merchant::MerchantStatus;
use tollgate::flows::manage_keys::NewApiKey;

use crate::support::merchant::plain_key;
use crate::support::{Merchant, TestApp, Tokens, each_engine, each_engine_with};

const MOMENT: TimeDelta = TimeDelta::microseconds(1);

/// Both calls of a client are refused in the same way.
#[track_caller]
fn refused(replies: &[crate::support::Reply; 2], status: u16, error: &str) {
    for reply in replies {
        reply.refused(status, error);
    }
}

/// A new session, and a refresh of an old one.
async fn both(app: &TestApp, merchant: &Merchant, tokens: &Tokens) -> [crate::support::Reply; 2] {
    [app.send(merchant.authorize()).await, app.send(merchant.refresh(&tokens.refresh)).await]
}

/// Checks that both work, and returns their answers.
async fn both_work(app: &TestApp, merchant: &Merchant, tokens: &Tokens) -> Tokens {
    let [started, refreshed] = both(app, merchant, tokens).await;
    started.tokens();
    refreshed.tokens()
}

#[tokio::test]
async fn a_session_that_is_not_refreshed_ends_after_its_idle_life() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        // Tokens have whole seconds, so the idle time ends at a whole second.
        let idle = TimeDelta::days(30) - TimeDelta::milliseconds(250);
        let (at_the_last_moment, too_late) = (app.tokens(&merchant).await, app.tokens(&merchant).await);
        app.advance(idle - MOMENT);
        app.send(merchant.refresh(&at_the_last_moment.refresh)).await.tokens();
        app.advance(MOMENT);
        app.send(merchant.refresh(&too_late.refresh)).await.refused(400, "invalid_grant");
        let events = app.number("select count(*) from audit_events where action like 'session.%'").await;
        assert_eq!(events, 0, "an expired token is no replay");
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_after_its_absolute_life_however_often_it_is_refreshed() {
    each_engine_with(
        |settings| settings.tokens.lifetimes.session_ttl = TimeDelta::days(90),
        async |app| {
            let merchant = app.merchant().await;
            let mut tokens = app.tokens(&merchant).await;
            for _ in 0..3 {
                app.advance(TimeDelta::days(29));
                tokens = app.send(merchant.refresh(&tokens.refresh)).await.tokens();
            }
            app.advance(TimeDelta::days(3) - TimeDelta::minutes(30));
            let reply = app.send(merchant.refresh(&tokens.refresh)).await;
            assert_eq!(reply.json()["expires_in"], 1800, "an access token does not outlive its session");
            app.advance(TimeDelta::minutes(30));
            app.send(merchant.refresh(&reply.tokens().refresh)).await.refused(400, "invalid_grant");
            app.tokens(&merchant).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_licence_lapses_exactly_at_its_second_and_works_again_once_renewed() {
    let table =
        [(Product::ApiKeys, 401, "invalid_client"), (Product::EnhancedSecurity, 400, "unauthorized_client")];
    each_engine(async |app| {
        for (product, status, error) in table {
            let merchant = app.merchant().await;
            let tokens = app.tokens(&merchant).await;
            let end = app.now().plus(TimeDelta::minutes(10));
            let until = |end| Licence { active: true, expires_at: Some(end) };
            app.put_licence(merchant.id, product, until(end)).await;
            app.advance(TimeDelta::minutes(10) - MOMENT);
            let tokens = both_work(&app, &merchant, &tokens).await;
            app.advance(MOMENT);
            refused(&both(&app, &merchant, &tokens).await, status, error);
            app.put_licence(merchant.id, product, until(end.plus(TimeDelta::days(1)))).await;
            both_work(&app, &merchant, &tokens).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_ends_exactly_at_its_second() {
    each_engine(async |app| {
        let expires_at = Some(app.now().plus(TimeDelta::hours(1)));
        let merchant = app.merchant_with(NewApiKey { expires_at, ..plain_key() }).await;
        let tokens = app.tokens(&merchant).await;
        app.advance(TimeDelta::hours(1) - MOMENT);
        let tokens = both_work(&app, &merchant, &tokens).await;
        app.advance(MOMENT);
        refused(&both(&app, &merchant, &tokens).await, 401, "invalid_client");
    })
    .await;
}

#[tokio::test]
async fn switching_off_ends_every_session_for_good_and_only_those_of_its_client() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let other = app.client_of(&merchant).await;
        let (tokens, of_other) = (app.tokens(&merchant).await, app.tokens(&other).await);
        app.switch(&merchant, false).await;
        refused(&both(&app, &merchant, &tokens).await, 400, "unauthorized_client");
        both_work(&app, &other, &of_other).await;

        app.switch(&merchant, true).await;
        app.send(merchant.refresh(&tokens.refresh)).await.refused(400, "invalid_grant");
        let fresh = app.tokens(&merchant).await;
        both_work(&app, &merchant, &fresh).await;
    })
    .await;
}

#[tokio::test]
async fn a_suspended_merchant_is_an_unknown_one_until_it_is_reinstated() {
    each_engine(async |app| {
        let (merchant, other) = (app.merchant().await, app.merchant().await);
        let (tokens, of_other) = (app.tokens(&merchant).await, app.tokens(&other).await);
        app.set_status(merchant.id, MerchantStatus::Suspended).await;
        refused(&both(&app, &merchant, &tokens).await, 401, "invalid_client");
        both_work(&app, &other, &of_other).await;
        app.set_status(merchant.id, MerchantStatus::Active).await;
        both_work(&app, &merchant, &tokens).await;
    })
    .await;
}

#[tokio::test]
async fn a_client_works_with_its_own_key_alone() {
    each_engine(async |app| {
        let first = app.merchant().await;
        let second = app.key_of(first.id, plain_key()).await;
        let crossed = Merchant { key: second.key.clone(), ..first.clone() };
        let tokens = app.tokens(&first).await;
        refused(&both(&app, &crossed, &tokens).await, 401, "invalid_client");
        both_work(&app, &first, &tokens).await;
    })
    .await;
}

#[tokio::test]
async fn a_clock_set_back_neither_refuses_nor_resurrects() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        app.advance(TimeDelta::hours(3));
        let first = app.tokens(&merchant).await;
        let second = app.send(merchant.refresh(&first.refresh)).await.tokens();
        app.advance(-TimeDelta::hours(2));
        assert_eq!(app.send(merchant.refresh(&first.refresh)).await.tokens(), second);
        let reply = app.send(merchant.refresh(&second.refresh)).await;
        reply.tokens();
        assert_eq!(reply.json()["expires_in"], 3600);
    })
    .await;
}

#[tokio::test]
async fn what_one_replica_changes_the_other_obeys_at_the_next_call() {
    each_engine(async |app| {
        let (here, there) = (app.replica().await, app);
        let merchant = here.merchant().await;
        let tokens = both_work(&there, &merchant, &here.tokens(&merchant).await).await;

        for product in [Product::ApiKeys, Product::EnhancedSecurity] {
            let (status, error) = match product {
                Product::ApiKeys => (401, "invalid_client"),
                Product::EnhancedSecurity => (400, "unauthorized_client"),
            };
            here.put_licence(merchant.id, product, Licence { active: false, expires_at: None }).await;
            refused(&both(&there, &merchant, &tokens).await, status, error);
            here.put_licence(merchant.id, product, Licence { active: true, expires_at: None }).await;
            app_refreshes(&there, &merchant, &tokens).await;
        }

        here.set_status(merchant.id, MerchantStatus::Suspended).await;
        refused(&both(&there, &merchant, &tokens).await, 401, "invalid_client");
        here.set_status(merchant.id, MerchantStatus::Active).await;
        let tokens = both_work(&there, &merchant, &tokens).await;

        here.switch(&merchant, false).await;
        refused(&both(&there, &merchant, &tokens).await, 400, "unauthorized_client");
        here.switch(&merchant, true).await;
        there.send(merchant.refresh(&tokens.refresh)).await.refused(400, "invalid_grant");
        there.tokens(&merchant).await;
    })
    .await;
}

/// Presents the same refresh token repeatedly. Within the window it is a retry.
async fn app_refreshes(app: &TestApp, merchant: &Merchant, tokens: &Tokens) {
    app.send(merchant.refresh(&tokens.refresh)).await.tokens();
}

/// An outdated cache must never admit a call. The other replica has last accepted this one.
#[tokio::test]
async fn a_refresh_and_an_end_that_meet_leave_no_live_session() {
    each_engine(async |app| {
        let (here, there) = (app.replica().await, app);
        for _ in 0..20 {
            let merchant = here.merchant().await;
            let tokens = there.tokens(&merchant).await;
            let (_, refreshed, started) = tokio::join!(
                here.switch(&merchant, false),
                there.send(merchant.refresh(&tokens.refresh)),
                there.send(merchant.authorize()),
            );
            // Each came before or after the change. Those from before have ended as well.
            for reply in [refreshed, started] {
                if reply.status == 200 {
                    let late = there.send(merchant.refresh(&reply.tokens().refresh)).await;
                    late.refused(400, "unauthorized_client");
                    here.switch(&merchant, true).await;
                    there.send(merchant.refresh(&reply.tokens().refresh)).await.refused(400, "invalid_grant");
                    here.switch(&merchant, false).await;
                } else {
                    reply.refused(400, "unauthorized_client");
                }
            }
        }
    })
    .await;
}
