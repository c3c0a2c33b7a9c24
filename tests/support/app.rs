//! The complete application on its own database, with a clock that the test moves.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tollgate::app::{App, Create};
use tollgate::config::{Settings, TokenKeys};
use tollgate::domain::clock::{Clock, Timestamp};
use tollgate::domain::entropy::Entropy;
use tollgate::flows::SharedCore;
use tollgate::http::front::Front;
use tollgate::jobs::pace::Step;
use tollgate::jobs::sweep::Kind;
use tollgate::store::Engine;

use super::database::engines;
use super::{Call, Database, Reply};

/// 2026-11-23 16:05:57.25 UTC. This is not a whole second, so that tests notice wrong rounding.
const START: Timestamp = Timestamp::from_micros(1_795_449_957_250_000);

/// All test applications use the same key, so that any two can share a database.
pub(crate) const TOKEN_KEY: [u8; 32] = [0x5a; 32];

/// Runs a test once for each engine, each time with a new application, and reports which engine failed.
pub(crate) async fn each_engine(test: impl AsyncFn(TestApp)) {
    each_engine_with(|_| {}, test).await;
}

/// Like [`each_engine`], but with changed settings.
pub(crate) async fn each_engine_with(configure: fn(&mut Settings), test: impl AsyncFn(TestApp)) {
    let mut failed = Vec::new();
    for engine in engines() {
        let run = async { test(TestApp::with(engine, configure).await).await };
        if AssertUnwindSafe(run).catch_unwind().await.is_err() {
            failed.push(engine);
        }
    }
    assert!(failed.is_empty(), "failed on {failed:?}, for the reasons above");
}

/// One replica.
pub(crate) struct TestApp {
    app: App,
    /// Made once, as in a server, because making all routes and the OpenAPI document takes milliseconds.
    front: Front,
    pub(crate) clock: Clock,
    pub(crate) database: Arc<Database>,
    configure: fn(&mut Settings),
}

impl TestApp {
    pub(crate) async fn new(engine: Engine) -> Self {
        Self::with(engine, |_| {}).await
    }

    pub(crate) async fn with(engine: Engine, configure: fn(&mut Settings)) -> Self {
        Self::on(Database::fresh(engine).await, Clock::manual(START), configure).await
    }

    /// On a database that the test has prepared.
    pub(crate) async fn over(database: Arc<Database>) -> Self {
        Self::over_with(database, |_| {}).await
    }

    pub(crate) async fn over_with(database: Arc<Database>, configure: fn(&mut Settings)) -> Self {
        Self::on(database, Clock::manual(START), configure).await
    }

    async fn on(database: Arc<Database>, clock: Clock, configure: fn(&mut Settings)) -> Self {
        let url = database.url.clone();
        Self::at(&url, database, clock, configure).await
    }

    /// A replica that reaches the database through another URL.
    pub(crate) async fn replica_at(&self, url: &str, configure: fn(&mut Settings)) -> Self {
        Self::at(url, Arc::clone(&self.database), self.clock.clone(), configure).await
    }

    async fn at(url: &str, database: Arc<Database>, clock: Clock, configure: fn(&mut Settings)) -> Self {
        let mut settings = Settings::with_defaults();
        settings.database.url = url.parse().expect("the tests' own URLs are well-formed");
        settings.server.data_dir = database.directory().to_owned();
        settings.tokens.keys = TokenKeys::new(vec![TOKEN_KEY]);
        configure(&mut settings);
        let app = App::build(&settings, Create::Database, clock.clone(), Entropy::System)
            .await
            .expect("the application can be built");
        let front = app.front();
        Self { app, front, clock, database, configure }
    }

    /// A replica with another clock.
    pub(crate) async fn replica_by(&self, clock: Clock) -> Self {
        Self::on(Arc::clone(&self.database), clock, self.configure).await
    }

    /// Makes the replica compare its clock with the database's.
    pub(crate) async fn look_at_clock(&self) {
        self.app.sweeper().clock().look().await.expect("the store answers");
    }

    /// Another replica with the same database, keys and clock. Nothing else is shared.
    pub(crate) async fn replica(&self) -> Self {
        Self::on(Arc::clone(&self.database), self.clock.clone(), self.configure).await
    }

    /// Stops gracefully.
    pub(crate) async fn stopped(self) {
        self.app.close().await;
    }

    /// Stops gracefully, and starts again on the same database.
    pub(crate) async fn restarted(self) -> Self {
        let Self { app, clock, database, configure, .. } = self;
        app.close().await;
        Self::on(database, clock, configure).await
    }

    pub(crate) fn core(&self) -> &SharedCore {
        self.app.core()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock of this replica and of every replica made from it.
    pub(crate) fn advance(&self, delta: TimeDelta) {
        self.clock.advance(delta);
    }

    /// Sends a call through the real router, as if it came from the call's peer.
    pub(crate) async fn send(&self, call: Call) -> Reply {
        Self::send_through(self.front.clone(), call).await
    }

    /// Sends a call whose client hangs up while it waits for the database.
    pub(crate) async fn hang_up(&self, call: Call) {
        let mut answer = Box::pin(self.front.call(call.into_request()));
        assert!(futures_util::poll!(answer.as_mut()).is_pending(), "nothing had to wait");
    }

    /// Like [`TestApp::send`], through the router of the operations listener.
    pub(crate) async fn send_to_ops(&self, call: Call) -> Reply {
        Self::send_through(self.app.ops_front(), call).await
    }

    async fn send_through(front: Front, call: Call) -> Reply {
        let response = match front.call(call.into_request()).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body in memory does not break off").to_bytes();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Writes all exchange records and last-used times so far to the database.
    pub(crate) async fn flush(&self) {
        self.app.flush().await;
    }

    /// Attempts every webhook that is due, and returns when all attempts are recorded.
    pub(crate) async fn deliver(&self) {
        self.app.deliverer().tick().await.expect("the store answers");
    }

    /// The same if the store may fail. Returns whether it worked.
    pub(crate) async fn try_to_deliver(&self) -> bool {
        self.app.deliverer().tick().await.is_ok()
    }

    /// The same in the background.
    pub(crate) fn start_delivering(&self) -> JoinHandle<()> {
        let deliverer = Arc::clone(self.app.deliverer());
        tokio::spawn(async move { deliverer.tick().await.expect("the store answers") })
    }

    pub(crate) fn stop_delivering(&self) {
        self.app.deliverer().stop();
    }

    /// Makes all steps of one sweeper walk. Returns how many rows were removed.
    pub(crate) async fn sweep(&self, kind: Kind) -> u64 {
        let mut removed = 0;
        loop {
            let step = self.app.sweeper().tick(kind).await.expect("the store answers");
            removed += step.removed;
            if step.is_last {
                return removed;
            }
        }
    }

    /// Makes one step of a walk.
    pub(crate) async fn sweep_step(&self, kind: Kind) -> Step {
        self.app.sweeper().tick(kind).await.expect("the store answers")
    }

    /// Runs a statement that the application does not have.
    pub(crate) async fn run_sql(&self, sql: &'static str) -> u64 {
        let mut db = self.core().store.write().await.expect("the store answers");
        db.query(sql).execute().await.expect("the test's own SQL is right")
    }

    /// The single number that a query returns.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let mut db = self.core().store.read().await.expect("the store answers");
        db.query(sql).one::<(i64,)>().await.expect("the query of the test is right").0
    }

    /// Serves on a port of 127.0.0.1, over real TCP.
    pub(crate) async fn serve(self) -> Served {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("the system has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (stop, stopped) = oneshot::channel();
        let core = Arc::clone(self.app.core());
        let task = tokio::spawn(self.app.run(listener, async {
            // If a test ends without stopping the server, the sender is dropped, which stops it too.
            let _ = stopped.await;
        }));
        Served { address, core, stop, task, _database: self.database }
    }
}

/// An application that listens.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) core: SharedCore,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _database: Arc<Database>,
}

impl Served {
    /// Stops it and waits until it has stopped.
    pub(crate) async fn stop(self) {
        let Self { stop, task, .. } = self;
        drop(stop);
        task.await.expect("the server stops without a panic");
    }
}
