//! The audit chain: old events are removed, the rest can still be verified, and events that were removed by
//! hand are reported as missing.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::config::Settings;
use tollgate::domain::destination::{DestinationRules, WebhookUrl};
use tollgate::flows::audit_chain::ChainVerdict;
use tollgate::jobs::audit_head::HeadReporter;
use tollgate::jobs::sweep::Kind;
use tollgate::store::audit_head::Head;

use super::support::program::{Server, run, stdout_of};
use super::support::receiver::{Answering, Receiver};
use super::support::{Database, TestApp, each_engine, engines};

const OPERATORS_SECRET: &str = "whsec_b3BlcmF0b3JzIHNlY3JldCBvZiAzMiBieXRlcyBsb24=";

async fn verdict(app: &TestApp) -> ChainVerdict {
    app.core().verify_audit_chain().await.expect("the store answers")
}

/// A trail of which the first half has had its time; how many events there are in each half.
async fn old_and_new_events(app: &TestApp) -> (u64, i64) {
    let count = async || app.number("select count(*) from audit_events").await;
    let merchant = app.merchant().await;
    let old = count().await;
    app.advance(TimeDelta::days(400) + TimeDelta::seconds(1));
    app.switch(&merchant, false).await;
    app.switch(&merchant, true).await;
    (u64::try_from(old).expect("a count"), count().await - old)
}

#[tokio::test]
async fn the_audit_chain_holds_over_a_cut_and_goes_on() {
    each_engine(async |app| {
        let (old, new) = old_and_new_events(&app).await;
        let other = app.replica().await;
        let (here, there) = tokio::join!(app.sweep(Kind::AuditEvents), other.sweep(Kind::AuditEvents));
        assert_eq!(here + there, old);
        assert_eq!(verdict(&app).await, ChainVerdict::Holds { events: new });
        app.merchant().await;
        assert!(matches!(verdict(&app).await, ChainVerdict::Holds { events } if events > new));
        app.advance(TimeDelta::days(401));
        app.sweep(Kind::AuditEvents).await;
        assert_eq!(verdict(&app).await, ChainVerdict::Holds { events: 0 }, "all of it may go");
        app.merchant().await;
        assert!(matches!(verdict(&app).await, ChainVerdict::Holds { events } if events > 0));
    })
    .await;
}

/// Whether a verdict matches the manipulation.
type IsNoticed = fn(ChainVerdict) -> bool;

#[tokio::test]
async fn events_removed_by_hand_are_missed_also_after_a_cut() {
    let removals: [(&str, IsNoticed); 4] = [
        ("delete from audit_events where seq in (select min(seq) from audit_events)", |verdict| {
            matches!(verdict, ChainVerdict::Broken { .. })
        }),
        ("delete from audit_events where seq in (select max(seq) from audit_events)", |verdict| {
            matches!(verdict, ChainVerdict::Short { .. })
        }),
        ("delete from audit_events", |verdict| matches!(verdict, ChainVerdict::Short { .. })),
        // The anchor was moved over the removed events, with the right hash.
        (
            "update audit_chain set cut_seq = cut_seq + 1, \
             cut_hash = (select hash from audit_events where seq = cut_seq + 1)",
            |verdict| matches!(verdict, ChainVerdict::ForgedCut { .. }),
        ),
    ];
    for (removal, is_noticed) in removals {
        each_engine(async |app| {
            old_and_new_events(&app).await;
            app.sweep(Kind::AuditEvents).await;
            app.run_sql(removal).await;
            let found = verdict(&app).await;
            assert!(is_noticed(found), "{removal}: {found:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_head_that_was_set_back_is_missed_also_when_events_follow() {
    let set_back = "update audit_chain set seq = seq - 2, \
                    hash = (select a.hash from audit_events a where a.seq = audit_chain.seq - 2)";
    each_engine(async |app| {
        app.merchant().await;
        app.run_sql(set_back).await;
        app.run_sql("delete from audit_events where seq > (select seq from audit_chain)").await;
        assert!(matches!(verdict(&app).await, ChainVerdict::Short { .. }), "{:?}", verdict(&app).await);
        // Enough events to reach the sealed number again.
        app.merchant().await;
        assert!(matches!(verdict(&app).await, ChainVerdict::ForgedHead { .. }), "{:?}", verdict(&app).await);
        let restarted = app.restarted().await;
        let found = verdict(&restarted).await;
        assert!(matches!(found, ChainVerdict::ForgedHead { .. }), "a start heals nothing: {found:?}");
    })
    .await;
}

#[tokio::test]
async fn a_seal_that_was_moved_or_taken_away_is_missed() {
    for harm in [
        "update audit_chain set head_seal = null",
        "update audit_chain set sealed_seq = sealed_seq - 1, \
         sealed_hash = (select a.hash from audit_events a where a.seq = sealed_seq - 1)",
        "update audit_chain set head_seal = cut_seal",
    ] {
        each_engine(async |app| {
            app.merchant().await;
            app.run_sql(harm).await;
            app.merchant().await;
            let found = verdict(&app).await;
            assert!(matches!(found, ChainVerdict::ForgedHead { .. }), "{harm}: {found:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_trail_without_a_seal_is_sealed_at_the_next_start_and_says_so() {
    each_engine(async |app| {
        app.merchant().await;
        app.run_sql("update audit_chain set head_seal = null, sealed_seq = 0").await;
        let app = app.restarted().await;
        assert!(matches!(verdict(&app).await, ChainVerdict::Holds { .. }));
        let sealed = "select count(*) from audit_events where action = 'audit.sealed'";
        assert_eq!(app.number(sealed).await, 1);
        assert_eq!(app.restarted().await.number(sealed).await, 1, "once");
    })
    .await;
}

#[tokio::test]
async fn a_database_that_was_set_back_whole_is_missed_by_a_head_kept_elsewhere() {
    each_engine(async |app| {
        app.merchant().await;
        let kept = app.core().audit_head().await.expect("the store answers");
        let compared =
            async |head: Head| app.core().verify_audit_head(&head).await.expect("the store answers");
        assert_eq!(compared(kept.clone()).await, None);
        app.merchant().await;
        assert_eq!(compared(kept.clone()).await, None, "it goes on from there");
        assert_eq!(compared(Head { hash: kept.hash[..6].to_vec(), ..kept.clone() }).await, None);
        for other in [
            Head { seq: kept.seq - 1, ..kept.clone() },
            Head { seq: kept.seq + 1000, ..kept.clone() },
            Head { hash: vec![0; 32], ..kept.clone() },
        ] {
            let missed = ChainVerdict::NotTheHeadKept { seq: other.seq };
            assert_eq!(compared(other).await, Some(missed));
        }
    })
    .await;
}

#[tokio::test]
async fn a_chain_that_does_not_hold_is_not_cut() {
    for harm in [
        "delete from audit_events where seq = 2",
        "delete from audit_events where seq = 1",
        "update audit_events set outcome = 'refused' where seq = 2",
        "update audit_chain set cut_seq = 2, cut_hash = (select hash from audit_events where seq = 2)",
    ] {
        each_engine(async |app| {
            old_and_new_events(&app).await;
            app.run_sql(harm).await;
            let rows = app.number("select count(*) from audit_events").await;
            let before = verdict(&app).await;
            assert!(!matches!(before, ChainVerdict::Holds { .. }), "{harm}");
            assert_eq!(app.sweep(Kind::AuditEvents).await, 0, "{harm}");
            assert_eq!(verdict(&app).await, before, "{harm}");
            assert_eq!(app.number("select count(*) from audit_events").await, rows, "{harm}");
        })
        .await;
    }
}

#[tokio::test]
async fn the_operators_are_told_of_the_head_when_it_changes_and_hourly() {
    each_engine(async |app| {
        let receiver = Receiver::open();
        let mut settings = Settings::with_defaults();
        settings.webhooks.operator_url =
            Some(WebhookUrl::parse(&receiver.url(), DestinationRules::OPEN).expect("a URL"));
        settings.webhooks.operator_secret = Some(OPERATORS_SECRET.parse().expect("a secret"));
        let reporter =
            HeadReporter::new(Arc::clone(app.core()), &settings.webhooks).expect("a URL and a secret");
        let told = async || {
            reporter.tick().await.expect("the store answers");
            receiver.take().len()
        };
        app.merchant().await;
        receiver.answer(Answering::Status(500));
        assert_eq!((told().await, told().await), (1, 1), "it was not taken");
        receiver.answer(Answering::Status(204));
        assert_eq!((told().await, told().await), (1, 0));
        app.merchant().await;
        assert_eq!((told().await, told().await), (1, 0));
        app.advance(TimeDelta::hours(1));
        assert_eq!((told().await, told().await), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn the_head_that_the_operators_were_sent_is_one_to_verify_against() {
    for engine in engines() {
        let database = Database::fresh(engine).await;
        let receiver = Receiver::open();
        let mut command = Server::command("serve", &database);
        command.env("TOLLGATE__WEBHOOKS__OPERATOR_URL", receiver.url());
        command.env("TOLLGATE__WEBHOOKS__OPERATOR_SECRET", OPERATORS_SECRET);
        stdout_of(&mut Server::command_of(&["operator", "add", "Ops"], &database));
        let _server = Server::start(&mut command);
        let hook = receiver.until_received(1).await.remove(0);
        assert!(hook.is_signed_with(OPERATORS_SECRET));
        assert_eq!(hook.event_type(), "audit.head");
        let kept = database.directory().join("head.json");
        let verified = async |head: &Value| {
            std::fs::write(&kept, head.to_string()).expect("a temporary directory takes files");
            let kept = kept.to_str().expect("temporary directories have plain names");
            run(&mut Server::command_of(&["audit", "verify", "--head", kept], &database)).status.success()
        };
        let mut head = hook.json()["data"].clone();
        assert!(verified(&head).await);
        head["seq"] = json!(head["seq"].as_i64().expect("a number") + 1);
        assert!(!verified(&head).await);
    }
}
