//! Resource servers ask about tokens of a merchant that moves, as config/cells/README.md says.

use axum::http::Method;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::RunningCell;
use super::moving::World;
use super::proxy::Proxy;
use super::routing::FORM;
use crate::admin::{introspect_as, text};
use crate::support::Call;
use crate::support::program::stdout_of;

/// More than the failed authentications that an address has in a minute.
const TOO_MANY: usize = 620;

/// An admin token of the merchant, made in cell 1.
async fn token_of_merchant(world: &World, role: &str, permissions: &[&str]) -> (String, String) {
    let merchant = &world.cells[0].merchant;
    let new = json!({ "name": role, "role": role, "merchant_id": merchant.id, "permissions": permissions });
    let made = world.admin(1, (Method::POST, "tokens"), new, 201).await;
    (text(&made, "id").to_owned(), text(&made, "token").to_owned())
}

async fn assert_finds_sessions_that_moved(proxy: fn(&[RunningCell]) -> Proxy) {
    let world = World::behind(proxy).await;
    let merchant = &world.cells[0].merchant;
    let [first, second] = [0, 1].map(|cell: usize| world.cells[cell].service.as_str());
    let (own_id, own) = token_of_merchant(&world, "service", &["introspect"]).await;
    let (_, admin) = token_of_merchant(&world, "merchant_admin", &[]).await;
    let is_active = async |call: Call| world.answer_with(200, &call).await.json()["active"] == true;
    let opened = world.answer_with(200, &merchant.authorize()).await.tokens();
    let of_other = world.answer_with(200, &world.cells[1].merchant.authorize()).await.tokens();
    assert!(is_active(introspect_as(first, &opened.access)).await);
    world.answer_with(401, &introspect_as(second, &opened.access)).await;

    let mut mover = world.mover_with_map(1, 2);
    let moving = spawn_blocking(move || stdout_of(&mut mover));
    while !moving.is_finished() {
        // A proxy that is reloaded may close a connection.
        let Ok(reply) = world.client().await.send(introspect_as(&own, &opened.access)).await else {
            continue;
        };
        assert!([200, 503].contains(&reply.status), "{}", reply.text());
    }
    moving.await.expect("it moves");
    let new = world.answer_with(200, &merchant.authorize()).await.tokens();
    let renewed = world.answer_with(200, &merchant.refresh(&opened.refresh)).await.tokens();
    assert_eq!([&opened, &renewed, &new].map(|pair| &pair.access[10..14]), ["ABvO", "ABvO", "ACvO"]);
    for token in [&opened.access, &renewed.access, &new.access] {
        world.answer_with(401, &introspect_as(first, token)).await;
        assert!(is_active(introspect_as(second, token)).await);
        world.answer_with(200, &merchant.verify(token)).await;
        // A token of the merchant moved with it.
        assert!(is_active(introspect_as(&own, token)).await);
    }
    let junk = "x".repeat(60);
    for token in ["junk", &junk, &of_other.access] {
        for call in [
            introspect_as(&own, token),
            Call::post("/api/introspect").basic(&own_id, &own).form(&[("token", token)]),
            Call::post("/api/introspect")
                .body(Some(FORM), format!("client_id={own_id}&client_secret={own}&token={token}")),
        ] {
            assert!(!is_active(call).await, "{token}");
        }
    }
    let listed = world
        .answer_with(200, &Call::get("/admin/v1/tokens").header("authorization", format!("Bearer {admin}")))
        .await
        .json();
    assert!(listed["items"].as_array().is_some_and(|tokens| tokens.len() == 2), "{listed}");

    // Many tokens of the wrong cell stop neither the right one nor the way to it.
    let mut client = world.client().await;
    for _ in 0..TOO_MANY {
        let reply = client.send(introspect_as(first, &opened.access)).await.expect("the proxy answers");
        assert!([401, 429].contains(&reply.status), "{}", reply.text());
    }
    world.answer_with(429, &introspect_as(first, &opened.access)).await;
    assert!(is_active(introspect_as(second, &opened.access)).await);
    world.answer_with(200, &merchant.revoke(&opened.access)).await;
    assert!(!is_active(introspect_as(second, &renewed.access)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_server_finds_the_cell_of_a_session_that_moved_behind_haproxy() {
    assert_finds_sessions_that_moved(Proxy::haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_server_finds_the_cell_of_a_session_that_moved_behind_nginx() {
    assert_finds_sessions_that_moved(Proxy::nginx).await;
}
