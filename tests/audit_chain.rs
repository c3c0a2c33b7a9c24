//! The audit chain: old events are removed, the rest can still be verified, and events that were removed by
//! hand are reported as missing.

use chrono::TimeDelta;
use tollgate::flows::audit_chain::ChainVerdict;
use tollgate::jobs::sweep::Kind;
use tollgate::store::audit_head::Head;

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
