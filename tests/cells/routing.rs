//! The proxies of `config/cells` send each call to the cell that it carries.

use tollgate::store::Engine;

use super::RunningCell;
use super::proxy::Proxy;
use crate::support::tcp::Client;
use crate::support::{Call, Database, Tokens};

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

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

/// What carries a key, an id or nothing but an admin token. Returns a pair of tokens of each cell.
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
        // The server reads ids in the form that both proxies read, and in no other.
        for id in [
            merchant.id.uuid().simple().to_string(),
            format!("%7B{}%7D", merchant.id),
            format!("urn:uuid:{}", merchant.id),
        ] {
            let reply = send(get(&format!("/admin/v1/merchants/{id}"), operator)).await;
            assert_eq!(reply.status, 404, "{id} of cell {number}: {}", reply.text());
        }
        // Nothing but the operator's token says which cell is meant.
        let listed = send(get("/admin/v1/merchants", operator)).await;
        assert_eq!(listed.json()["items"][0]["id"], merchant.id.to_string(), "{}", listed.text());
        // What cannot be a key says nothing.
        for key in ["", " ", "x", "\t"] {
            let path = format!("/admin/v1/merchants/{}", merchant.id);
            for path in ["/admin/v1/merchants", &path] {
                let reply = send(get(path, operator).header("x-api-key", key)).await;
                assert_eq!(reply.status, 200, "{path} with {key:?}: {}", reply.text());
            }
        }
        let blank = format!("\t{} \t", merchant.key);
        let reply = send(merchant.authorize().without("x-api-key").key(&blank)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        // The name of a cell decides before everything else.
        let elsewhere = format!("cell-{}.tollgate.example", number % 3 + 1);
        let refused = client.send_to(&elsewhere, merchant.authorize()).await.expect("the proxy answers");
        refused.refused(401, "invalid_client");
    }
    let unknown = Call::post("/api/authorize").key(&"7".repeat(64)).form(&[("client_id", "a")]);
    client.send(unknown).await.expect("the proxy answers").refused(401, "invalid_client");
    pairs
}

async fn assert_sends_each_call_to_the_cell_that_it_carries(proxy: fn(&[RunningCell]) -> Proxy) {
    let cells = cells().await;
    let proxy = proxy(&cells);
    let mut client = Client::connect(proxy.address).await.expect("the proxy accepts");
    let pairs = assert_routes(&mut client, &cells).await;
    for (cell, pair) in cells.iter().zip(&pairs) {
        for token in ["junk", &pair.access] {
            assert_finds_service_tokens(&mut client, cell, token).await;
        }
    }
    let mut ask = async |service: &str, label: &'static str, body: &str| {
        let call = Call::post("/api/introspect").header("authorization", format!("Bearer {service}"));
        client.send(call.body(Some(label), body.to_owned())).await.expect("the proxy answers")
    };
    for (number, (cell, pair)) in cells.iter().zip(&pairs).enumerate() {
        let of_another = &cells[(number + 1) % cells.len()].service;
        let token = pair.access.as_str();
        let json = format!(" {{\"token\":\"{token}\"}}");
        let (first, rest) = (token.as_bytes()[0], &token[1..]);
        let filler = format!("a={0}&b={0}&c={0}&d={0}", "x".repeat(3950));
        for (label, body) in [
            (FORM, format!("token={token}")),
            // Nearly as long as the server accepts, with the token at its end.
            (FORM, format!("{filler}&token={token}")),
            (FORM, format!("token_type_hint=access_token&token=%{first:02X}{rest}")),
            (FORM, format!("token%5Ftype%5Fhint=access_token&%74oken=%{first:02x}{rest}&a=b+c")),
            (JSON, json.clone()),
            // What begins with a brace is JSON, whatever its label.
            (FORM, json),
        ] {
            // Without a key, the token that the call is about decides, and not the service token.
            assert_eq!(ask(&cell.service, label, &body).await.json()["active"], true, "{label}: {body}");
            ask(of_another, label, &body).await.refused(401, "invalid_client");
        }
        // What is no token says nothing, so the service token decides.
        for body in ["token=", "token=x", "token=%", "", "{", "\0"] {
            let reply = ask(&cell.service, FORM, body).await;
            assert!([200, 400].contains(&reply.status), "{body}: {}", reply.text());
        }
    }
}

/// A service token may also be a client secret, in HTTP Basic or in the body.
async fn assert_finds_service_tokens(client: &mut Client, cell: &RunningCell, token: &str) {
    let listed =
        client.send(get("/admin/v1/tokens", &cell.operator)).await.expect("the proxy answers").json();
    let tokens = listed["items"].as_array().expect("a list");
    let service = tokens.iter().find(|token| token["role"] == "service").expect("there is a service token");
    let (id, secret) = (service["id"].as_str().expect("an id"), cell.service.as_str());
    let json = serde_json::json!({ "client_id": id, "client_secret": secret, "token": token });
    let asked = Call::post("/api/introspect");
    for call in [
        asked.clone().basic(id, secret).form(&[("token", token)]),
        asked.clone().body(Some(FORM), format!("client_id={id}&client_secret={secret}&token={token}")),
        // With all escapes that there can be.
        asked.clone().form(&[("client_id", id), ("client_secret", secret), ("token", token)]),
        asked.body(Some(JSON), json.to_string()),
    ] {
        let reply = client.send(call).await.expect("the proxy answers");
        assert_eq!(reply.status, 200, "cell {}, token {token}: {}", cell.number, reply.text());
        assert_eq!(reply.json()["active"], token != "junk");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_sends_each_call_to_the_cell_that_it_carries() {
    assert_sends_each_call_to_the_cell_that_it_carries(Proxy::haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_sends_each_call_to_the_cell_that_it_carries() {
    assert_sends_each_call_to_the_cell_that_it_carries(Proxy::nginx).await;
}
