//! The proxies of `config/cells` send each call to the cell that it carries.

use tollgate::store::Engine;

use super::RunningCell;
use super::proxy::Proxy;
use crate::admin::introspect_as;
use crate::support::tcp::Client;
use crate::support::{Call, Database, Tokens};

async fn cells() -> Vec<RunningCell> {
    let mut cells = Vec::new();
    for number in 1..=3 {
        cells.push(RunningCell::start(number, Database::fresh(Engine::Sqlite).await).await);
    }
    cells
}

fn get(path: &str, token: &str) -> Call {
    Call::get(path).header("authorization", format!("Bearer {token}"))
}

/// What both proxies can do. Returns a pair of tokens of each cell.
async fn assert_routes(client: &mut Client, cells: &[RunningCell]) -> Vec<Tokens> {
    let mut pairs = Vec::new();
    for (number, cell) in (1..).zip(cells) {
        let merchant = &cell.merchant;
        let mut send = async |call| client.send(call).await.expect("the proxy answers");
        let pair = send(merchant.authorize()).await.tokens();
        let pair = send(merchant.refresh(&pair.refresh)).await.tokens();
        assert_eq!(send(merchant.introspect(&pair.access)).await.json()["active"], true);
        assert_eq!(send(merchant.verify(&pair.access)).await.status, 200);
        pairs.push(pair);

        let operator = cell.operator.as_str();
        for path in [
            format!("merchants/{}", merchant.id),
            format!("merchants/{}/api-keys", merchant.id),
            format!("api-keys/{}", merchant.key_id),
            format!("credentials/{}", merchant.client_id),
        ] {
            let reply = send(get(&format!("/admin/v1/{path}"), operator)).await;
            assert_eq!(reply.status, 200, "{path} of cell {number}: {}", reply.text());
        }
        // Nothing but the operator's token says which cell is meant.
        let listed = send(get("/admin/v1/merchants", operator)).await;
        assert_eq!(listed.json()["items"][0]["id"], merchant.id.to_string(), "{}", listed.text());
        // The name of a cell decides before everything else.
        let elsewhere = format!("cell-{}.tollgate.example", number % 3 + 1);
        let refused = client.send_to(&elsewhere, merchant.authorize()).await.expect("the proxy answers");
        refused.refused(401, "invalid_client");
    }
    let unknown = Call::post("/api/authorize").key(&"7".repeat(64)).form(&[("client_id", "a")]);
    client.send(unknown).await.expect("the proxy answers").refused(401, "invalid_client");
    pairs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_sends_each_call_to_the_cell_that_it_carries() {
    let cells = cells().await;
    let proxy = Proxy::haproxy(&cells);
    let mut client = Client::connect(proxy.address).await.expect("the proxy accepts");
    let pairs = assert_routes(&mut client, &cells).await;
    for (cell, pair) in cells.iter().zip(&pairs) {
        // Without a key, the token that the call is about decides.
        let asked = introspect_as(&cell.service, &pair.access);
        let json = introspect_as(&cell.service, &pair.access).json(&[("token", &pair.access)]);
        for call in [asked, json] {
            let told = client.send(call).await.expect("the proxy answers").json();
            assert_eq!(told["active"], true, "{told}");
        }
    }
    // A service token of another cell is not known where the token is.
    let foreign = client.send(introspect_as(&cells[0].service, &pairs[1].access)).await;
    foreign.expect("the proxy answers").refused(401, "invalid_client");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_sends_each_call_to_the_cell_that_it_carries() {
    let cells = cells().await;
    let proxy = Proxy::nginx(&cells);
    let mut client = Client::connect(proxy.address).await.expect("the proxy accepts");
    let pairs = assert_routes(&mut client, &cells).await;
    // Without a key, the service token decides.
    for (cell, pair) in cells.iter().zip(&pairs) {
        let told = client.send(introspect_as(&cell.service, &pair.access)).await;
        assert_eq!(told.expect("the proxy answers").json()["active"], true);
    }
}
