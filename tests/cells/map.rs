//! The map of what moved keeps everything but the lines of sessions that are over and of keys that are forgotten,
//! whatever a move is told.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum::http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use tollgate::domain::token::SealedToken;
use uuid::Uuid;

use super::moving::{World, add_line};
use crate::admin::{introspect_as, text};
use crate::support::Call;
use crate::support::program::{run, stdout_of};

fn lines_of(map: &Path) -> BTreeSet<String> {
    let map = fs::read_to_string(map).expect("there is a map");
    map.lines().map(str::to_owned).collect()
}

async fn superuser_of(world: &World, cell: usize) -> PgConnection {
    PgConnection::connect(&world.cells[cell - 1].database.url).await.expect("the superuser gets in")
}

/// Removes the row of a session, as a day after its end.
async fn forget(world: &World, cell: usize, session: Uuid) {
    let mut db = superuser_of(world, cell).await;
    let forgotten = sqlx::query("delete from sessions where id = $1").bind(session).execute(&mut db).await;
    assert_eq!(forgotten.expect("it is deleted").rows_affected(), 1);
}

fn whoami(key: &str) -> Call {
    Call::get("/api/whoami").key(key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_over_loses_its_line_and_nothing_else_does() {
    let world = World::new().await;
    let (merchant, map) = (&world.cells[0].merchant, world.proxy.moved_map());
    let mut client = world.client().await;
    let mut begin = async || client.send(merchant.authorize()).await.expect("the proxy answers").tokens();
    let (over, live) = (begin().await, begin().await);
    add_line(&map, "# of another cell, by hand\n01a20d60fef67003bce17286a391e4c4 cell_3\n");
    stdout_of(&mut world.mover_with_map(1, 2));
    let before = lines_of(&map);

    // The row of a session is removed a day after the session has ended.
    let over = SealedToken::parse(&over.access).expect("it is a token").claims().session.uuid();
    forget(&world, 2, over).await;
    stdout_of(&mut world.mover_with_map(1, 2));
    let after = lines_of(&map);
    let lost: Vec<_> = before.difference(&after).collect();
    assert_eq!(lost, [&format!("{} cell_2", over.simple())]);
    assert!(after.is_subset(&before));
    let asked = introspect_as(&world.cells[1].service, &live.access);
    let told = world.client().await.send(asked).await.expect("the proxy answers").json();
    assert_eq!(told["active"], true, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_loses_its_line_once_the_new_cell_has_forgotten_it_and_no_earlier() {
    let world = World::new().await;
    let (merchant, map) = (&world.cells[0].merchant, world.proxy.moved_map());
    let make = async || {
        let path = format!("merchants/{}/api-keys", merchant.id);
        let named = json!({ "name": "Till", "environment": "live" });
        world.admin(1, (Method::POST, &path), named, 201).await
    };
    let (revoked, forgotten) = (make().await, make().await);
    let new = json!({ "name": "Desk", "role": "merchant_viewer", "merchant_id": merchant.id });
    let token = world.admin(1, (Method::POST, "tokens"), new, 201).await;
    let rotate = format!("tokens/{}/rotate", text(&token, "id"));
    world.admin(1, (Method::POST, &rotate), json!({ "overlap_secs": 3600 }), 201).await;
    let (revoked_id, revoked, forgotten) =
        (text(&revoked, "id"), text(&revoked, "key"), text(&forgotten, "key"));
    stdout_of(&mut world.mover_with_map(1, 2));
    let before = lines_of(&map);

    let token = hex::encode(Sha256::digest(text(&token, "token")));
    assert!(before.contains(&format!("{token} cell_2")), "the earlier secret has no line");
    let rotate = format!("api-keys/{}/rotate", merchant.key_id);
    let newer = world.admin(2, (Method::POST, &rotate), json!({ "overlap_secs": 3600 }), 201).await;
    world.answer_with(200, &whoami(text(&newer, "key"))).await;
    world.admin(2, (Method::DELETE, &format!("api-keys/{revoked_id}")), Value::Null, 204).await;
    // As after many rotations.
    let hash = hex::encode(Sha256::digest(forgotten));
    let delete = sqlx::query("delete from secrets where encode(hash, 'hex') = $1").bind(&hash);
    let deleted = delete.execute(&mut superuser_of(&world, 2).await).await;
    assert_eq!(deleted.expect("it is deleted").rows_affected(), 1);
    let by_hand = format!("{hash} cell_1");
    add_line(&map, &format!("{by_hand}\n"));
    // The move of another merchant adds no lines of this one.
    stdout_of(&mut world.command(1, &["merchant", "onboard", "Bolt", "--admin", "ada@example.com"]));
    stdout_of(&mut world.mover_of("Bolt", 1, 2));
    let after = lines_of(&map);
    let lost: Vec<_> = before.difference(&after).collect();
    assert_eq!(lost, [&format!("{hash} cell_2")]);
    assert!(after.contains(&by_hand), "a line that stands elsewhere is lost");

    world.answer_with(503, &whoami(forgotten)).await;
    // The overlap of its rotation runs.
    world.answer_with(200, &whoami(&merchant.key)).await;
    world.answer_with(401, &whoami(revoked)).await;
    world.cells[1].server.wait_for_log("key_revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_backend_takes_no_line_of_another_merchant() {
    let world = World::new().await;
    let (merchant, map) = (&world.cells[0].merchant, world.proxy.moved_map());
    let pair = world.client().await.send(merchant.authorize()).await.expect("the proxy answers").tokens();
    let session = SealedToken::parse(&pair.access).expect("it is a token").claims().session.uuid();
    stdout_of(&mut world.mover_with_map(1, 2));
    let before = lines_of(&map);
    // What is left in the cell that the merchant has left says nothing about its sessions.
    forget(&world, 1, session).await;
    stdout_of(&mut world.command(2, &["merchant", "onboard", "Bolt", "--admin", "ada@example.com"]));
    let to = &world.cells[0].database.url;
    let mut mistaken = world.command(2, &["cell", "move", "Bolt", "--to", to, "--backend", "cell_2"]);
    stdout_of(mistaken.arg("--map").arg(&map));
    let after = lines_of(&map);
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(lost.is_empty() && after.len() > before.len(), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_does_not_fit_the_map_is_refused_before_it_begins() {
    let world = World::new().await;
    let (merchant, map) = (&world.cells[0].merchant, world.proxy.moved_map());
    let empty = fs::read_to_string(&map).expect("there is a map");
    let (id, digits) = ("01a20d60-fef6-7003-bce1-7286a391e4c4", "01a20d60fef67003bce17286a391e4c4");
    let unknown = format!("# Lines of merchant {id}\n{digits} cell_2\n# End of merchant {id}\n");
    for (lines, told) in [
        (unknown.as_str(), "which cell 2 does not have"),
        ("0123456789abcdef cell_3;\n", "its lines are for another --proxy"),
    ] {
        fs::write(&map, empty.clone() + lines).expect("the map is written");
        let refused = run(&mut world.mover_with_map(1, 2));
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && error.contains(told), "{error}");
        assert_eq!(fs::read_to_string(&map).expect("there is a map"), empty.clone() + lines);
        world.client().await.send(merchant.authorize()).await.expect("the proxy answers").tokens();
    }
    // The lines of another backend do not matter.
    fs::write(&map, empty + &unknown.replace("cell_2", "cell_3")).expect("the map is written");
    stdout_of(&mut world.mover_with_map(1, 2));
    assert!(lines_of(&map).contains(&format!("{digits} cell_3")));
}
