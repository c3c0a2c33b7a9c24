//! Callers that keep a server busy and remember everything that it acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::tcp::{Client, Gone};
use super::{Merchant, Tokens};

/// Each new session is refreshed this many times.
const REFRESHES: usize = 3;

/// A caller that goes on without its server waits as long after each failure, as a client would.
const PAUSE: Duration = Duration::from_millis(50);

/// What happened so far, over all callers.
#[derive(Default)]
struct Tally {
    acknowledged: AtomicU64,
    unavailable: AtomicU64,
    stop: AtomicBool,
    /// Whether callers whose connection ended connect again.
    reconnects: bool,
}

/// Several callers, each in its own task and with its own connection.
pub(crate) struct Load {
    tally: Arc<Tally>,
    progress: watch::Receiver<()>,
    callers: JoinSet<Outcome>,
}

/// What the callers have seen.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The last acknowledged pair of each session.
    pub(crate) sessions: Vec<Tokens>,
    /// Statuses other than 200, with their bodies.
    pub(crate) refused: Vec<(u16, String)>,
}

impl Load {
    /// Starts `callers` tasks that authorize and refresh until they are stopped or the server is gone.
    pub(crate) fn start(address: SocketAddr, merchant: &Merchant, callers: usize) -> Self {
        Self::of(Tally::default(), address, merchant, callers)
    }

    /// Like [`Load::start`], but callers connect again until they are stopped. A call without an answer counts
    /// as refused, with status 0.
    pub(crate) fn that_reconnects(address: SocketAddr, merchant: &Merchant, callers: usize) -> Self {
        Self::of(Tally { reconnects: true, ..Tally::default() }, address, merchant, callers)
    }

    fn of(tally: Tally, address: SocketAddr, merchant: &Merchant, callers: usize) -> Self {
        let tally = Arc::new(tally);
        let (progressed, progress) = watch::channel(());
        let progressed = Arc::new(progressed);
        let callers = (0..callers)
            .map(|_| call_on(address, merchant.clone(), Arc::clone(&tally), Arc::clone(&progressed)))
            .collect();
        Self { tally, progress, callers }
    }

    /// Waits until this many more replies were 200.
    pub(crate) async fn acknowledged(&mut self, more: u64) {
        self.reached(more, |tally| &tally.acknowledged).await;
    }

    /// Waits until this many more replies were 503.
    pub(crate) async fn unavailable(&mut self, more: u64) {
        self.reached(more, |tally| &tally.unavailable).await;
    }

    async fn reached(&mut self, more: u64, of: impl Fn(&Tally) -> &AtomicU64) {
        let wanted = of(&self.tally).load(Ordering::SeqCst) + more;
        let reached = self.progress.wait_for(|()| of(&self.tally).load(Ordering::SeqCst) >= wanted);
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("the server goes on answering")
            .expect("the callers go on");
    }

    /// Lets each caller finish its current call.
    pub(crate) async fn stop(self) -> Outcome {
        self.tally.stop.store(true, Ordering::SeqCst);
        self.until_gone().await
    }

    /// Waits until every caller has lost the server.
    pub(crate) async fn until_gone(self) -> Outcome {
        let mut all = Outcome::default();
        for Outcome { sessions, refused } in self.callers.join_all().await {
            all.sessions.extend(sessions);
            all.refused.extend(refused);
        }
        all
    }
}

async fn call_on(
    address: SocketAddr,
    merchant: Merchant,
    tally: Arc<Tally>,
    progressed: Arc<watch::Sender<()>>,
) -> Outcome {
    let mut outcome = Outcome::default();
    // A caller ends with its connection. It does not know the result of a call without an answer.
    while call_until_gone(address, &merchant, &tally, &progressed, &mut outcome).await.is_err()
        && tally.reconnects
        && !tally.stop.load(Ordering::SeqCst)
    {
        outcome.refused.push((0, "no answer".to_owned()));
        tokio::time::sleep(PAUSE).await;
    }
    outcome
}

async fn call_until_gone(
    address: SocketAddr,
    merchant: &Merchant,
    tally: &Tally,
    progressed: &watch::Sender<()>,
    outcome: &mut Outcome,
) -> Result<(), Gone> {
    let mut client = Client::connect(address).await?;
    let mut turn = 0;
    while !tally.stop.load(Ordering::SeqCst) {
        let starts = turn % (REFRESHES + 1) == 0;
        let call = match outcome.sessions.last() {
            Some(tokens) if !starts => merchant.refresh(&tokens.refresh),
            _ => merchant.authorize(),
        };
        let reply = client.send(call).await?;
        if reply.status == 200 {
            if !starts {
                outcome.sessions.pop();
            }
            outcome.sessions.push(reply.tokens());
            tally.acknowledged.fetch_add(1, Ordering::SeqCst);
            turn += 1;
        } else {
            tally.unavailable.fetch_add(u64::from(reply.status == 503), Ordering::SeqCst);
            outcome.refused.push((reply.status, reply.text()));
            // The next round starts a session or presents the same token again.
            if tally.reconnects {
                tokio::time::sleep(PAUSE).await;
            }
        }
        progressed.send_replace(());
    }
    Ok(())
}
