//! The pictures in the README. `TOLLGATE_PICTURES=1` writes them to `tests/console/pictures`.

use std::path::PathBuf;

use tollgate::store::Engine;

use super::browser::Browser;
use super::tour::{calls, one_time_link};
use crate::support::Database;
use crate::support::database::open;
use crate::support::program::Server;

/// Calls of the last 23 hours, so that the charts show a day.
const A_DAY: [&str; 3] = [
    "create temporary table past as with recursive h(n) as (select 1 union all select n + 1 from h where n < 23) \
     select n, (cast(unixepoch() as integer) / 3600 - n) * 3600000000 as slot from h",
    "insert into call_counts select m.id, 3600, p.slot, k.kind, k.reason, k.good, 38 + p.n % 4, \
     max(1, k.calls + p.n * 7 % 11 - abs(p.n - 11) / k.divisor) from past p, merchants m, \
     (select 'issued' as kind, '' as reason, 1 as good, 14 as calls, 1 as divisor \
     union all select 'refreshed', '', 1, 26, 1 union all select 'other', 'client_secret_wrong', 0, 1, 3 \
     union all select 'other', 'address_not_allowed', 0, 3, 3) k",
    "insert into exchanges (id, merchant_id, at, request_id, method, path, status, reason, client_ip, hops, api_key_id, \
     client_id, latency_us) \
     select unhex(printf('%012x', (p.slot + c.n * 60000000) / 1000) || '70008000' || printf('%012x', c.n)), k.merchant_id, \
     p.slot + c.n * 60000000, '', 'POST', '/api/authorize', iif(c.n % 9 = 8, 401, 200), \
     iif(c.n % 9 = 8, 'client_secret_wrong', null), iif(c.n % 3 = 0, '203.0.113.7', '198.51.100.20'), '[]', k.id, \
     r.client_id, 900 + c.n * 13 from past p, (with recursive c(n) as (select 1 union all select n + 1 from c where n < 59) select n from c) c, api_keys k \
     join credentials r on r.api_key_id = k.id where c.n < 12 + p.n * 7 % 17",
];

#[tokio::test]
async fn the_readme_gets_its_pictures_if_they_are_asked_for() {
    if std::env::var_os("TOLLGATE_PICTURES").is_none() {
        return;
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/console/pictures");
    std::fs::create_dir_all(&folder).expect("the repository can be written");
    let database = Database::fresh(Engine::Sqlite).await;
    let (server, printed) = Server::demo(&database);
    calls(&printed);
    let store = open(&database.url).await;
    let mut tx = store.begin().await.expect("the store answers");
    for sql in A_DAY {
        tx.query(sql).execute().await.expect("the statement is right");
    }
    tx.commit().await.expect("the store answers");

    let browser = Browser::open(&format!("http://{}", server.address), "pictures").await;
    browser.goto(&one_time_link(&printed)).await;
    browser.click("Sign in").await;
    browser.fill("New password", "correct horse battery").await;
    browser.fill("Repeat new password", "correct horse battery").await;
    browser.click("Save password").await;
    browser.sees("Your password was saved").await;
    browser.goto("/console/merchants").await;
    browser.click("Demo merchant").await;
    browser.sees("Tokens issued").await;
    let base = browser.path().await;
    browser.photograph(&folder.join("overview.png"), "light").await;
    browser.goto(&format!("{base}/api-keys")).await;
    browser.click("Demo").await;
    browser.sees("Audit trail of this key").await;
    browser.photograph(&folder.join("key.png"), "light").await;
    browser.goto(&format!("{base}/api-details")).await;
    browser.photograph(&folder.join("api-details.png"), "dark").await;
    browser.goto("/docs").await;
    browser.photograph(&folder.join("docs.png"), "light").await;
    browser.close().await;
}
