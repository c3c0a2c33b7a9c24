//! Floods of each kind against the real program, one after the other, while a merchant's calls go on. The calls are answered in
//! time, and the program's memory is bounded.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::body::Body;
use futures_util::future::{BoxFuture, join_all};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tollgate::domain::admin::Role;
use tollgate::flows::principal::Principal;

use crate::admin::Admin;
use crate::console::people::{from_a_page, sign_in_form};
use crate::support::merchant::{done, plain_key};
use crate::support::program::Server;
use crate::support::tcp::Client;
use crate::support::{Call, Database, Merchant, TestApp, engines};

/// The most memory that the program may allocate, so that it lives in a container with 64 MiB. Its code is not counted: the
/// kernel can drop it, and in a debug build it is several times that of the image.
const ALLOCATED_MAX_KIB: u64 = 64 * 1024;

/// How long each flood goes on.
const FOR: Duration = Duration::from_secs(2);

/// The slowest call of the merchant, in a debug build on a machine that other tests keep busy.
const SLOWEST: Duration = Duration::from_secs(5);

/// All of them but one in twenty.
const USUAL: Duration = Duration::from_secs(1);

/// Floods come from here, and the merchant from another address.
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Callers of a flood at a time.
const CALLERS: usize = 32;

/// Connections of a flood that does not call.
const CONNECTIONS: usize = 900;

/// What there is to attack, and with what.
struct Target {
    address: SocketAddr,
    merchant: Merchant,
    revoked: Merchant,
    viewer: String,
    admin: String,
}

type Flood = for<'a> fn(&'a Target) -> BoxFuture<'a, ()>;

const FLOODS: [(&str, Flood); 8] = [
    ("made-up sign-in links", |target| {
        calls(target, |_, n| from_a_page("/console/once", &[("token", &link(n))]))
    }),
    ("sign-ins", |target| {
        calls(target, |_, n| sign_in_form(&format!("a{n}@x.example"), "no password at all"))
    }),
    ("hashing for a viewer", |target| calls(target, |target, n| new_user(target, &target.viewer, n))),
    ("hashing for an admin", |target| calls(target, |target, n| new_user(target, &target.admin, n))),
    ("calls with a revoked key", |target| calls(target, |target, _| target.revoked.authorize())),
    ("large bodies", |target| {
        calls(target, |target, _| target.merchant.call().body(None, vec![b'x'; 1 << 20]))
    }),
    ("heads of 32 KiB", |target| held(target, &[b'x'; 31 * 1024])),
    ("idle connections", |target| held(target, b"")),
];

fn link(n: usize) -> String {
    format!("{n:043}")
}

fn new_user(target: &Target, token: &str, n: usize) -> Call {
    let merchant = target.merchant.id;
    let email = format!("u{n}@x.example");
    let body = json!({ "email": email, "role": "merchant_viewer", "merchant_id": merchant, "password": "p".repeat(12) });
    Call::post("/admin/v1/users").header("authorization", format!("Bearer {token}")).json_value(&body)
}

/// A connection from the attacker's address; `None` where the server takes no more.
async fn connected(target: &Target) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind((ATTACKER, 0).into()).ok()?;
    socket.connect(target.address).await.ok()
}

/// Calls from several connections at once, each as fast as it is answered, whatever the answer.
fn calls<'a>(target: &'a Target, call: fn(&Target, usize) -> Call) -> BoxFuture<'a, ()> {
    let one = move |caller: usize| async move {
        let until = Instant::now() + FOR;
        let mut n = caller;
        while Instant::now() < until {
            let Some(stream) = connected(target).await else { continue };
            let Ok((mut sender, connection)) = handshake::<_, Body>(TokioIo::new(stream)).await else {
                continue;
            };
            tokio::spawn(connection);
            while Instant::now() < until && sender.ready().await.is_ok() {
                n += CALLERS;
                let mut request = call(target, n).into_request();
                request.headers_mut().insert("host", "a".parse().expect("it is a header's value"));
                if sender.send_request(request).await.is_err() {
                    break;
                }
            }
        }
    };
    Box::pin(async move {
        join_all((0..CALLERS).map(one)).await;
    })
}

/// Connections that send the beginning of a head with `padding` in it, and then nothing.
fn held<'a>(target: &'a Target, padding: &'static [u8]) -> BoxFuture<'a, ()> {
    let one = move || async move {
        let mut stream = connected(target).await?;
        if !padding.is_empty() {
            let head = [b"GET / HTTP/1.1\r\nhost: a\r\nx: ".as_slice(), padding].concat();
            stream.write_all(&head).await.ok()?;
        }
        Some(stream)
    };
    Box::pin(async move {
        let held = join_all((0..CONNECTIONS).map(|_| one())).await;
        tokio::time::sleep(FOR).await;
        drop(held);
    })
}

/// How long each call of the merchant took while `flood` went on, and the most memory that the server had.
async fn watched(
    target: &Target,
    server: &Server,
    what: &str,
    flood: BoxFuture<'_, ()>,
) -> (Vec<Duration>, u64) {
    let mut client = Client::connect(target.address).await.expect("it listens");
    let (mut took, mut peak_kib) = (Vec::new(), 0);
    let calling = async {
        let mut token: Option<String> = None;
        loop {
            let call = match &token {
                Some(token) => target.merchant.verify(token),
                None => target.merchant.authorize(),
            };
            let started = Instant::now();
            let reply = client.send(call).await.expect("the server goes on answering");
            took.push(started.elapsed());
            peak_kib = peak_kib.max(memory_kib(server));
            assert_eq!(reply.status, 200, "during {what}: {}", reply.text());
            token = if token.is_none() { Some(reply.tokens().access) } else { None };
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = flood => {}
        () = calling => {}
    }
    took.sort_unstable();
    (took, peak_kib)
}

/// What the program has allocated, without its code and files.
fn memory_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of kibibytes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merchants_calls_go_on_in_bounded_memory_while_others_flood() {
    for engine in engines() {
        let database = Database::fresh(engine).await;
        let app = TestApp::over(database.clone()).await;
        let merchant = app.merchant().await;
        let revoked = app.key_of(merchant.id, plain_key()).await;
        done(app.core().revoke_api_key(&Principal::command_line(), revoked.key_id).await);
        let viewer = Admin::of(&app, Role::MerchantViewer, Some(merchant.id)).await.token;
        let admin = Admin::of(&app, Role::MerchantAdmin, Some(merchant.id)).await.token;
        app.stopped().await;

        let mut command = Server::command("serve", &database);
        let server = Server::start(command.env("TOLLGATE__LOG__PROBES", "false"));
        let target = Target { address: server.address, merchant, revoked, viewer, admin };
        for (what, flood) in FLOODS {
            let (took, peak_kib) = watched(&target, &server, what, flood(&target)).await;
            let (slowest, usual) = (took[took.len() - 1], took[took.len() * 19 / 20]);
            eprintln!(
                "{engine:?} {what}: {} calls, {usual:?}, at most {slowest:?}, {peak_kib} KiB",
                took.len()
            );
            assert!(slowest < SLOWEST && usual < USUAL, "{engine:?}, {what}: {usual:?}, {slowest:?}");
            assert!(peak_kib < ALLOCATED_MAX_KIB, "{engine:?}, {what}: {peak_kib} KiB");
        }
    }
}
