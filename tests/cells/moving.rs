//! A merchant moves to another cell while it works: nothing that was acknowledged is lost, and nothing that was
//! revoked works again.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use tollgate::store::Engine;

use super::RunningCell;
use super::proxy::Proxy;
use crate::admin::introspect_as;
use crate::support::load::Load;
use crate::support::postgres::Cluster;
use crate::support::program::{Server, run, stdout_of};
use crate::support::tcp::Client;
use crate::support::{Call, Database, Merchant, Reply, database};
use crate::transport::PATIENCE;

const CALLERS: usize = 4;

/// What the command says before each of its steps.
const STEPS: [&str; 9] = [
    "offering the merchant's rows",
    "starting the copy",
    "copying: 0 tables left",
    "writing what is known beside the map",
    "switching the merchant off",
    "all changes have arrived",
    "switching the merchant on",
    "writing the map",
    "clearing up",
];

pub(super) struct World {
    pub(super) cells: Vec<RunningCell>,
    pub(super) proxy: Proxy,
    _clusters: [Cluster; 2],
}

impl World {
    pub(super) async fn new() -> Self {
        Self::behind(Proxy::haproxy).await
    }

    pub(super) async fn behind(proxy: fn(&[RunningCell]) -> Proxy) -> Self {
        let clusters = [(); 2].map(|()| Cluster::start());
        let cells = RunningCell::start_on(&clusters).await;
        let proxy = proxy(&cells);
        Self { cells, proxy, _clusters: clusters }
    }

    /// `tollgate cell move` for the merchant of cell 1, from one cell to the other.
    fn mover(&self, from: usize, to: usize) -> Command {
        self.mover_without_map(&self.cells[0].merchant.id.to_string(), from, to)
    }

    fn mover_without_map(&self, merchant: &str, from: usize, to: usize) -> Command {
        self.command(from, &["cell", "move", merchant, "--to", &self.cells[to - 1].database.url])
    }

    /// A command on a cell.
    pub(super) fn command(&self, cell: usize, arguments: &[&str]) -> Command {
        let cell = &self.cells[cell - 1];
        let mut command = Server::command_of(arguments, &cell.database);
        command.env("TOLLGATE__CELL__ID", cell.number.to_string()).env("PATH", "/usr/bin:/bin");
        command
    }

    /// The same, and tells the proxy.
    pub(super) fn mover_with_map(&self, from: usize, to: usize) -> Command {
        self.with_map(self.mover(from, to), to, &self.proxy.reload())
    }

    /// The same for a merchant with this name.
    pub(super) fn mover_of(&self, merchant: &str, from: usize, to: usize) -> Command {
        self.with_map(self.mover_without_map(merchant, from, to), to, &self.proxy.reload())
    }

    fn with_map(&self, mut command: Command, to: usize, reload: &str) -> Command {
        command.arg("--map").arg(self.proxy.moved_map());
        let proxy = format!("--proxy={}", self.proxy.name);
        command.args([format!("--backend=cell_{to}"), proxy, format!("--reload={reload}")]);
        command
    }

    /// A transaction that keeps the last changes of a move from cell 1 from arriving, for two seconds at most.
    async fn transaction(&self) -> PgConnection {
        let url = &self.cells[0].database.url;
        let mut connection = PgConnection::connect(url).await.expect("the superuser gets in");
        connection.execute("begin; select 1").await.expect("a transaction begins");
        connection
    }

    pub(super) async fn client(&self) -> Client {
        Client::connect(self.proxy.address).await.expect("the proxy accepts")
    }

    /// The answer to a call of the admin API, as the operator of a cell, once it has this status.
    pub(super) async fn admin(
        &self,
        cell: usize,
        (method, path): (Method, &str),
        body: Value,
        status: u16,
    ) -> Value {
        let call = Call::new(method, &format!("/admin/v1/{path}")).json_value(&body);
        let bearer = format!("Bearer {}", self.cells[cell - 1].operator);
        let reply = self.answer_with(status, &call.header("authorization", bearer)).await;
        if reply.body.is_empty() { Value::Null } else { reply.json() }
    }

    /// Repeats a call until its answer has this status, because a proxy goes on accepting connections with its old map for
    /// a moment after a reload, and may then close them.
    pub(super) async fn answer_with(&self, status: u16, call: &Call) -> Reply {
        let until = Instant::now() + PATIENCE;
        loop {
            let reply = self.client().await.send(call.clone()).await;
            match reply {
                Ok(reply) if reply.status == status => return reply,
                other => {
                    assert!(Instant::now() < until, "{:?}, not {status}", other.map(|reply| reply.text()))
                }
            }
        }
    }
}

/// Starts sessions and revokes them, until it is told to stop. Returns the tokens of those whose revocation was
/// acknowledged.
async fn revoke_until(stop: Arc<AtomicBool>, world: &World, merchant: &Merchant) -> Vec<String> {
    let mut revoked = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let mut client = world.client().await;
        let Ok(opened) = client.send(merchant.authorize()).await else { continue };
        if opened.status != 200 {
            continue;
        }
        let token = opened.tokens().refresh;
        let mut client = world.client().await;
        if client.send(merchant.revoke(&token)).await.is_ok_and(|reply| reply.status == 200) {
            revoked.push(token);
        }
    }
    revoked
}

/// Moves while calls go on, and checks everything that was acknowledged. The merchant ends in cell `to`.
async fn move_under_load(world: &World, to: usize, moves: impl AsyncFnOnce()) {
    let (merchant, service) = (&world.cells[0].merchant, &world.cells[to - 1].service);
    let mut load = Load::that_reconnects(world.proxy.address, merchant, CALLERS);
    load.acknowledged(50).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (revoked, ()) = tokio::join!(revoke_until(Arc::clone(&stop), world, merchant), async {
        moves().await;
        load.acknowledged(100).await;
        stop.store(true, Ordering::SeqCst);
    });
    let outcome = load.stop().await;
    assert!(outcome.refused.iter().all(|(status, _)| [0, 503].contains(status)), "{:?}", outcome.refused);
    assert!(!outcome.sessions.is_empty() && !revoked.is_empty());
    // A connection for each call, because nginx closes one after 1000 calls.
    let send = async |call: Call| world.client().await.send(call).await.expect("the proxy answers");
    for tokens in &outcome.sessions {
        let told = send(merchant.introspect(&tokens.access)).await.json();
        assert_eq!(told["active"], true, "an acknowledged token is lost: {told}");
        // Without a key, the proxy needs a line for the session.
        let told = send(introspect_as(service, &tokens.access)).await.json();
        assert_eq!(told["active"], true, "the map lacks a session: {told}");
        send(merchant.refresh(&tokens.refresh)).await.tokens();
    }
    for token in &revoked {
        send(merchant.refresh(token)).await.refused(400, "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_killed_at_each_step_loses_nothing_and_revives_nothing() {
    let world = World::new().await;
    move_under_load(&world, 2, async || {
        for step in STEPS {
            let mover = Server::begin(&mut world.mover_with_map(1, 2));
            mover.wait_for_log(step);
            mover.kill();
        }
        stdout_of(&mut world.mover_with_map(1, 2));
    })
    .await;
    assert!(!world.proxy.moved_map().with_extension("map.next").exists(), "a part of the map is left");
    // The old cell serves the merchant no more, and knows that it is not at fault.
    let merchant = &world.cells[0].merchant;
    let mut old = Client::connect(world.cells[0].server.address).await.expect("the server accepts");
    let refused = old.send(merchant.authorize()).await.expect("the server answers");
    refused.refused(503, "temporarily_unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    // The way back is a move like any other.
    move_under_load(&world, 1, async || {
        let moved = run(&mut world.mover_with_map(2, 1));
        let told = String::from_utf8_lossy(&moved.stderr).into_owned();
        assert!(moved.status.success(), "{told}");
        let off = told.split("the merchant was off for ").nth(1).and_then(|rest| rest.split(' ').next());
        let off: u64 = off.and_then(|millis| millis.parse().ok()).expect("the command says how long");
        assert!(off < 3000, "off for {off} ms");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merchant_that_moves_is_found_behind_nginx_too() {
    let world = World::behind(Proxy::nginx).await;
    let show = async |by: usize| {
        let path = format!("/admin/v1/merchants/{}/api-keys", world.cells[0].merchant.id);
        let bearer = format!("Bearer {}", world.cells[by - 1].operator);
        let call = Call::get(&path).header("authorization", bearer);
        world.client().await.send(call).await.expect("the proxy answers").status
    };
    for (from, to) in [(1, 2), (2, 1)] {
        assert_eq!((show(from).await, show(to).await), (200, 401));
        move_under_load(&world, to, async || drop(stdout_of(&mut world.mover_with_map(from, to)))).await;
        assert_eq!((show(from).await, show(to).await), (401, 200));
    }
}

/// The map's directory, as another move that writes the map locks it.
fn locked_directory(map: &Path) -> File {
    let directory = File::open(map.parent().expect("it is in a directory")).expect("the directory opens");
    directory.lock().expect("nobody else has it");
    directory
}

pub(super) fn add_line(map: &Path, line: &str) {
    fs::write(map, fs::read_to_string(map).expect("there is a map") + line).expect("the map is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merchant_that_an_interrupted_move_left_off_does_not_wait_for_the_map() {
    let world = World::new().await;
    let merchant = &world.cells[0].merchant;
    let interrupted = Server::begin(&mut world.mover_with_map(1, 2));
    interrupted.wait_for_log("all changes have arrived");
    interrupted.kill();
    let directory = locked_directory(&world.proxy.moved_map());
    let mover = Server::begin(&mut world.mover_with_map(1, 2));
    mover.wait_for_log("waiting for another move that writes");
    assert!(mover.log().contains("writing the map"), "{}", mover.log());
    let mut new = Client::connect(world.cells[1].server.address).await.expect("the server accepts");
    new.send(merchant.authorize()).await.expect("the server answers").tokens();
    // The wait can be interrupted.
    mover.signal("INT");
    assert_eq!(mover.ended_within(Duration::from_secs(10)).0.code(), Some(130));
    drop(directory);
    stdout_of(&mut world.mover_with_map(1, 2));
    let map = fs::read_to_string(world.proxy.moved_map()).expect("there is a map");
    assert!(map.contains(&format!("{} cell_2", merchant.id.to_string().replace('-', ""))), "{map}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_map_has_what_came_after_most_of_it_was_written() {
    let world = World::new().await;
    let (merchant, map) = (&world.cells[0].merchant, world.proxy.moved_map());
    // Nothing is written through a link in place of an earlier move's file.
    let victim = map.with_file_name("victim");
    fs::write(&victim, "kept").expect("the file is written");
    symlink(&victim, map.with_extension("map.next")).expect("the link is made");
    let directory = locked_directory(&map);
    // The move goes on once the proxy has read the map and the new cell has opened a session.
    let opened = File::open(&victim).expect("the file opens");
    opened.lock().expect("nobody else has it");
    let reload = format!("{}; flock {} true", world.proxy.reload(), victim.display());
    let mover = Server::begin(&mut world.with_map(world.mover(1, 2), 2, &reload));
    mover.wait_for_log("waiting for another move that writes");
    let late = world.client().await.send(merchant.authorize()).await.expect("the proxy answers").tokens();
    let lines = ["0123456789abcdef cell_3\n", "fedcba9876543210 cell_3\n"];
    add_line(&map, lines[0]);
    let transaction = world.transaction().await;
    drop(directory);
    mover.wait_for_log("switching the merchant off");
    add_line(&map, lines[1]);
    drop(transaction);
    // From here on, the old cell does not serve the merchant.
    mover.wait_for_log("writing the map");
    let mut client = world.client().await;
    // A connection with an answer is to a proxy that has read the map.
    while client.send(merchant.verify(&late.access)).await.expect("the proxy answers").status != 200 {
        client = world.client().await;
    }
    client.send(merchant.authorize()).await.expect("the proxy answers").tokens();
    drop(opened);
    let (status, told) = mover.ended_within(Duration::from_secs(60));
    assert!(status.success(), "{told}");

    let written = fs::read_to_string(&map).expect("there is a map");
    assert!(lines.iter().all(|line| written.contains(line)), "a line of somebody else is lost");
    assert_eq!(fs::read_to_string(&victim).expect("the file is there"), "kept");
    assert!(!told.contains("writing the rest"), "the map is written twice: {told}");
    // Without a key, the session's own line decides.
    let asked = introspect_as(&world.cells[1].service, &late.access);
    let told = world.client().await.send(asked).await.expect("the proxy answers").json();
    assert_eq!(told["active"], true, "{told}\n{written}");
}

/// A time after all tests.
const LATER: i64 = 4_102_444_800_000_000;

/// How many rows of a cell count calls in the slot at [`LATER`].
async fn counts(world: &World, cell: usize) -> i64 {
    let url = &world.cells[cell - 1].database.url;
    let mut db = PgConnection::connect(url).await.expect("the superuser gets in");
    let count = sqlx::query_scalar("select count(*) from call_counts where slot = $1");
    count.bind(LATER).fetch_one(&mut db).await.expect("the database answers")
}

fn assert_too_late(undone: &Output) {
    let told = String::from_utf8_lossy(&undone.stderr);
    assert!(!undone.status.success() && told.contains("in the new cell already"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_is_undone_until_the_merchant_is_on_in_its_new_cell() {
    let world = World::new().await;
    let merchant = &world.cells[0].merchant;
    // In a slot that is not over, so that no sweeper adds it to its hour meanwhile.
    let url = &world.cells[0].database.url;
    let mut old = PgConnection::connect(url).await.expect("the superuser gets in");
    sqlx::query("insert into call_counts values ($1, 60, $2, 'other', '', 1, -1, 7)")
        .bind(merchant.id)
        .bind(LATER)
        .execute(&mut old)
        .await
        .expect("it is counted");
    move_under_load(&world, 1, async || {
        for step in ["copying: 0 tables left", "switching the merchant off", "all changes have arrived"] {
            let mover = Server::begin(&mut world.mover(1, 2));
            mover.wait_for_log(step);
            mover.kill();
            let undone = run(world.mover(1, 2).arg("--undo"));
            if !undone.status.success() {
                // The command was faster than the kill.
                assert_too_late(&undone);
                stdout_of(&mut world.mover_with_map(1, 2));
                stdout_of(&mut world.mover_with_map(2, 1));
            }
        }
    })
    .await;
    let pair = world.client().await.send(merchant.authorize()).await.expect("the proxy answers").tokens();
    assert_eq!((counts(&world, 1).await, counts(&world, 2).await), (1, 0));
    stdout_of(&mut world.mover_with_map(1, 2));
    assert_eq!((counts(&world, 1).await, counts(&world, 2).await), (0, 1));
    assert_too_late(&run(world.mover(1, 2).arg("--undo")));
    let reply = world.client().await.send(merchant.refresh(&pair.refresh)).await.expect("the proxy answers");
    reply.tokens();
}

#[tokio::test]
async fn every_table_with_rows_of_a_merchant_moves() {
    const MOVED: &str = include_str!("../../src/store/transfer/tables.rs");
    let database = Database::fresh(Engine::Sqlite).await;
    database::open(&database.url).await.close().await;
    let mut db = SqliteConnection::connect(&database.url).await.expect("SQLite opens");
    let tables: Vec<(String,)> = sqlx::query_as(
        "select t.name from sqlite_master t join pragma_table_info(t.name) c \
         where t.type = 'table' and c.name = 'merchant_id'",
    )
    .fetch_all(&mut db)
    .await
    .expect("SQLite describes itself");
    assert!(tables.len() > 10, "{tables:?}");
    // The audit trail is one chain for each cell.
    for (table,) in tables.iter().filter(|(table,)| table != "audit_events") {
        assert!(MOVED.contains(&format!("(\"{table}\", \"merchant_id\"")), "{table} does not move");
    }
}
