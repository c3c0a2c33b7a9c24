//! The audit chain is cut where its events have had their time, holds over the cut, and misses what was
//! removed by hand.

use chrono::TimeDelta;
use tollgate::flows::audit_chain::ChainVerdict;
use tollgate::jobs::sweep::Kind;

use super::support::{TestApp, each_engine};

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

/// Whether a verdict tells of what was done.
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
        // The anchor moved over what was removed, with its true hash.
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
