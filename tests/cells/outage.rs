//! A cell that is down takes down its own merchants and nobody else's.

use super::RunningCell;
use super::proxy::Proxy;
use crate::support::load::Load;
use crate::support::postgres::Cluster;
use crate::support::tcp::Client;

/// Callers of each cell.
const CALLERS: usize = 4;

/// How many of the last sessions of each cell are looked at afterwards.
const CHECKED: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_takes_down_its_own_merchants_only() {
    let clusters = [(); 3].map(|()| Cluster::start());
    let cells = RunningCell::start_on(&clusters).await;
    let proxy = Proxy::haproxy(&cells);
    let start = |cell: &RunningCell| Load::that_reconnects(proxy.address, &cell.merchant, CALLERS);
    let mut loads: Vec<_> = cells.iter().map(start).collect();
    for load in &mut loads {
        load.acknowledged(100).await;
    }

    clusters[1].stop_immediate();
    loads[1].unavailable(20).await;
    for untouched in [0, 2] {
        loads[untouched].acknowledged(300).await;
    }
    clusters[1].start_again();
    loads[1].acknowledged(100).await;

    let mut client = Client::connect(proxy.address).await.expect("the proxy accepts");
    for ((number, load), cell) in (1..).zip(loads).zip(&cells) {
        let outcome = load.stop().await;
        // Callers of the cell that was down got 503 or lost a connection. Nobody else noticed.
        let is_expected = |(status, _): &(u16, String)| number == 2 && [0, 503].contains(status);
        assert!(outcome.refused.iter().all(is_expected), "cell {number}: {:?}", outcome.refused);
        assert!(!outcome.sessions.is_empty());
        for tokens in outcome.sessions.iter().rev().take(CHECKED) {
            let reply = client.send(cell.merchant.refresh(&tokens.refresh)).await;
            reply.expect("the proxy answers").tokens();
        }
    }
}
