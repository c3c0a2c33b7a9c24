//! The figures of the overview: they equal a count of the calls, and are read from the counts alone.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures_util::future::join_all;
use tollgate::domain::ids::MerchantId;
use tollgate::flows::figures::{Figures, Period};
use tollgate::flows::principal::Principal;
use tollgate::jobs::sweep::Kind;

use crate::support::{TestApp, each_engine};

const PERIODS: [Period; 3] = [Period::Hour, Period::Day, Period::Month];

/// How many calls to make. With `TOLLGATE_TEST_EXCHANGES=313000`, which takes minutes, the figures must also be there
/// within 50 ms.
fn number_of_calls() -> (usize, bool) {
    match std::env::var("TOLLGATE_TEST_EXCHANGES") {
        Ok(number) => (number.parse().expect("it is a number"), true),
        Err(_) => (500, false),
    }
}

async fn figures(app: &TestApp, merchant: MerchantId, period: Period) -> Figures {
    let figures = app.core().figures(&Principal::command_line(), merchant, period).await;
    figures.expect("the merchant is there")
}

#[tokio::test]
async fn the_figures_equal_a_count_of_the_calls_and_do_not_read_them() {
    each_engine(async |app| {
        let (number, is_timed) = number_of_calls();
        let merchant = app.merchant().await;
        let mut made = 0;
        while made < number {
            let access = app.tokens(&merchant).await.access;
            for _ in 0..40 {
                let call = |at: usize| match at {
                    0 => merchant.authorize(),
                    1 => merchant.refresh("junk"),
                    _ => merchant.verify(&access),
                };
                join_all((0..100).map(|at| app.send(call(at)))).await;
                made += 100;
                if made >= number {
                    break;
                }
            }
            app.flush().await;
            // Limits are by the minute.
            app.advance(TimeDelta::seconds(20));
        }

        let count = async |sql| app.number(sql).await;
        let calls = count("select count(*) from exchanges").await;
        assert!(calls >= i64::try_from(number).expect("it is small"), "{calls}");
        let issued =
            count("select count(*) from exchanges where path = '/api/authorize' and status < 400").await;
        let denied = count("select count(*) from exchanges where status >= 400").await;
        // Without the table there is nothing to read but the counts.
        app.run_sql("alter table exchanges rename to put_away").await;
        for period in PERIODS {
            figures(&app, merchant.id, period).await;
            let begun = Instant::now();
            let figures = figures(&app, merchant.id, period).await;
            let took = begun.elapsed();
            let total = |of: fn(&tollgate::flows::figures::Bucket) -> i64| {
                figures.buckets.iter().map(of).sum::<i64>()
            };
            assert_eq!(
                (figures.calls, total(|one| one.issued), total(|one| one.denied)),
                (calls, issued, denied)
            );
            assert_eq!(figures.denials.iter().map(|(_, calls)| calls).sum::<i64>(), denied);
            assert!(figures.p50_us > Some(0) && figures.p95_us >= figures.p50_us, "{figures:?}");
            assert!(!is_timed || took < Duration::from_millis(50), "{period:?}: {took:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_call_is_counted_once_after_the_sweep_too_and_beside_an_earlier_version() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let access = app.tokens(&merchant).await.access;
        for _ in 0..2 {
            assert_eq!(app.send(merchant.verify(&access)).await.status, 200);
        }
        app.flush().await;
        // What a replica with an earlier version counts for one more call.
        for slots in [
            "insert into call_counts select merchant_id, 120, slot / 120000000 * 120000000, kind, reason, good, \
             latency_class, calls from call_counts where slot_secs = 60 and kind = 'issued'",
            "insert into call_counts select merchant_id, 3600, slot / 3600000000 * 3600000000, kind, reason, good, \
             latency_class, calls from call_counts where slot_secs = 60 and kind = 'issued'",
            "insert into call_counts select merchant_id, 86400, slot / 86400000000 * 86400000000, kind, reason, good, \
             latency_class, calls from call_counts where slot_secs = 60 and kind = 'issued'",
        ] {
            app.run_sql(slots).await;
        }
        let shown = async |period| {
            let figures = figures(&app, merchant.id, period).await;
            (figures.calls, figures.buckets.iter().map(|one| one.issued).sum::<i64>())
        };
        for period in PERIODS {
            assert_eq!(shown(period).await, (4, 2), "{period:?}");
        }
        app.advance(TimeDelta::hours(4));
        // While a merchant moves, the cell that it moves to gets these rows from the other one.
        app.run_sql("update merchants set home = -1, revision = revision + 1").await;
        app.sweep(Kind::CallCounts).await;
        assert!(app.number("select count(*) from call_counts where slot_secs = 60").await > 0);
        app.run_sql("update merchants set home = null, revision = revision + 1").await;
        app.sweep(Kind::CallCounts).await;
        assert_eq!(app.number("select count(*) from call_counts where slot_secs < 3600").await, 0);
        for (period, expected) in PERIODS.into_iter().zip([(0, 0), (4, 2), (4, 2)]) {
            assert_eq!(shown(period).await, expected, "{period:?}");
        }
    })
    .await;
}
