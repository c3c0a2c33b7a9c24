//! The console over several cells.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tollgate::domain::admin::{Permission, Role};
use tollgate::store::Engine;

use super::CELLS;
use crate::admin::{Admin, admin_token, text};
use crate::console::people::{PASSWORD, cookie_of, sign_in_form};
use crate::support::database::open;
use crate::support::program::{Server, run};
use crate::support::receiver::{Answering, Receiver};
use crate::support::tcp::Client;
use crate::support::{Call, Database, Reply, TestApp, engines};
use crate::transport::Certificate;

const OPERATOR: &str = "ops@gate.example";
const OF_MERCHANT: &str = "ada@harbour.example";

/// A cell that does not run yet, with merchants of these names and users with [`PASSWORD`].
struct Prepared {
    number: usize,
    database: Arc<Database>,
    operator: String,
    /// A service token with which another cell may ask this one.
    reader: String,
    /// The ids of the merchants.
    merchants: Vec<String>,
}

impl Prepared {
    async fn new(engine: Engine, number: usize, names: &[&str]) -> Self {
        let app = TestApp::with(engine, CELLS[number - 1]).await;
        let admin = Admin::operator(&app).await;
        let mut merchants = Vec::new();
        for name in names {
            // Ids of one millisecond have no order.
            app.advance(TimeDelta::milliseconds(2));
            let made = admin.post("/merchants", json!({ "name": name, "gateway": "g" })).await.created();
            merchants.push(text(&made, "id").to_owned());
        }
        app.user(OPERATOR, Role::Operator, None).await;
        app.user(OF_MERCHANT, Role::MerchantAdmin, merchants[0].parse().ok()).await;
        let may = vec![Permission::MerchantsRead, Permission::AuditRead];
        let reader = admin_token(&app, Role::Service, None, may).await;
        let (operator, database) = (admin.token, Arc::clone(&app.database));
        app.stopped().await;
        Self { number, database, operator, reader, merchants }
    }

    fn start(&self, settings: &[(&str, &str)]) -> Server {
        let mut command = Server::command("serve", &self.database);
        command.env("TOLLGATE__CELL__ID", self.number.to_string());
        command.env("TOLLGATE__CELL__DEFAULT", (self.number == 1).to_string());
        Server::start(command.envs(settings.iter().copied()))
    }

    /// Starts it with other cells, each with a name, a URL and a token.
    fn start_over(&self, others: &[(&str, &str, &str)]) -> Server {
        self.start_trusting("", others)
    }

    /// The same, with a file of certificate authorities.
    fn start_trusting(&self, ca_file: &str, others: &[(&str, &str, &str)]) -> Server {
        let cells: Vec<_> = others.iter().map(|(name, url, _)| format!("{name}={url}")).collect();
        self.write_tokens(others.iter().map(|(name, _, token)| (*name, *token)));
        self.start(&[
            ("TOLLGATE__CONSOLE__CELLS", &cells.join(",")),
            ("TOLLGATE__CONSOLE__CELL_TOKENS_FILE", &self.tokens_file().display().to_string()),
            ("TOLLGATE__CONSOLE__CELL_CA_FILE", ca_file),
            ("TOLLGATE__LOG__LEVEL", "trace"),
        ])
    }

    fn tokens_file(&self) -> PathBuf {
        self.database.directory().join("cell-tokens")
    }

    fn write_tokens<'a>(&self, tokens: impl Iterator<Item = (&'a str, &'a str)>) {
        let lines: String = tokens.map(|(name, token)| format!("{name}={token}\n")).collect();
        std::fs::write(self.tokens_file(), lines).expect("the directory can be written");
    }
}

/// Cells that run. The first asks the others, and an operator is signed in there.
struct ThreeCells {
    prepared: [Prepared; 3],
    servers: [Server; 3],
    cookie: String,
}

impl ThreeCells {
    async fn start(engine: Engine) -> Self {
        let one = Prepared::new(engine, 1, &["Alder", "Harbour One"]).await;
        let two = Prepared::new(engine, 2, &["Harbour Two"]).await;
        let three = Prepared::new(engine, 3, &["Birch & Co"]).await;
        let (second, third) = (two.start(&[]), three.start(&[]));
        let (url_2, url_3) = (url_of(&second), url_of(&third));
        let first = one.start_over(&[("two", &url_2, &two.reader), ("three", &url_3, &three.reader)]);
        let cookie = sign_in(&first, OPERATOR).await;
        Self { prepared: [one, two, three], servers: [first, second, third], cookie }
    }
}

fn url_of(server: &Server) -> String {
    format!("http://{}", server.address)
}

async fn send(server: &Server, call: Call) -> Reply {
    let mut client = Client::connect(server.address).await.expect("it listens");
    client.send(call).await.expect("it answers")
}

async fn sign_in(server: &Server, email: &str) -> String {
    cookie_of(&send(server, sign_in_form(email, PASSWORD)).await)
}

async fn page(server: &Server, cookie: &str, path: &str) -> String {
    let reply = send(server, Call::get(path).header("cookie", cookie).header("accept", "text/html")).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.text()
}

/// The rows of the first table of a page.
fn rows(page: &str) -> Vec<String> {
    let body = page.split("<tbody>").nth(1).and_then(|rest| rest.split("</tbody>").next());
    body.unwrap_or_default().split("<tr>").skip(1).map(str::to_owned).collect()
}

/// All pages of a list, from the first to the last.
async fn all_rows(server: &Server, cookie: &str, path: &str) -> Vec<Vec<String>> {
    let (mut pages, mut path) = (Vec::new(), path.to_owned());
    loop {
        let found = page(server, cookie, &path).await;
        pages.push(rows(&found));
        let older = found.split("<p class=\"pager\">").nth(1).and_then(|rest| rest.split("href=\"").nth(1));
        let Some(query) = older.and_then(|rest| rest.split('"').next()) else { return pages };
        path = format!("{}{}", path.split('?').next().unwrap_or_default(), query.replace("&#38;", "&"));
    }
}

async fn reads_on_record(server: &Server, operator: &str) -> Vec<Value> {
    let call = Call::get("/admin/v1/audit-events/latest?action=audit_events.read");
    let list = send(server, call.header("authorization", format!("Bearer {operator}"))).await.json();
    list["items"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn one_page_has_the_merchants_and_events_of_all_cells_and_each_cell_knows_who_read() {
    for engine in engines() {
        let ThreeCells { prepared: [one, two, three], servers: [first, second, _third], cookie } =
            ThreeCells::start(engine).await;
        let url_2 = url_of(&second);

        let shown = page(&first, &cookie, "/console/merchants").await;
        assert!(
            shown.contains("Other cells answered: two in ") && shown.contains(" ms, three in "),
            "{shown}"
        );
        let found = rows(&shown);
        assert_eq!(found.len(), 4, "{found:?}");
        let row = |name: &str| found.iter().find(|row| row.contains(name)).expect("the merchant has a row");
        assert!(row("Alder").contains(&format!("href=\"/console/m/{}\"", one.merchants[0])));
        assert!(row("Alder").contains("This cell"));
        let of_two = row("Harbour Two");
        assert!(of_two.contains(&format!("href=\"{url_2}/console/m/{}\"", two.merchants[0])), "{of_two}");
        assert!(of_two.contains(">two</a>") && !of_two.contains("href=\"/"), "{of_two}");
        assert!(row("Birch").contains(">three</a>"));
        let found = rows(&page(&first, &cookie, "/console/merchants?q=harbour").await);
        assert!(found.len() == 2 && found.iter().all(|row| row.contains("Harbour ")), "{found:?}");
        let found = rows(&page(&first, &cookie, "/console/merchants?q=%26").await);
        assert!(found.len() == 1 && found[0].contains("Birch"), "{found:?}");

        let made = "/console/audit?action=merchant.created&outcome=done&who=Ops";
        let found = rows(&page(&first, &cookie, made).await);
        assert_eq!(found.len(), 4, "{found:?}");
        let of_two = found.iter().find(|row| row.contains(">two</a>")).expect("an event of each cell");
        let trail = format!("href=\"{url_2}/console/m/{}/audit\">Harbour Two</a>", two.merchants[0]);
        assert!(of_two.contains(&trail), "{of_two}");
        let of_object = format!("/console/audit?object={}", three.merchants[0]);
        assert!(rows(&page(&first, &cookie, &of_object).await).iter().all(|row| row.contains("three")));
        let of_nobody = rows(&page(&first, &cookie, "/console/audit?of=platform").await);
        assert!(
            of_nobody.len() > 3 && of_nobody.iter().all(|row| !row.contains("/audit\">")),
            "{of_nobody:?}"
        );

        // Each cell knows who read, and the request is the same in both.
        let (here, there) =
            (reads_on_record(&first, &one.operator).await, reads_on_record(&second, &two.operator).await);
        let (here, there) = (here.last().expect("an event"), there.last().expect("an event"));
        assert_eq!(
            (text(&here["actor"], "name"), &here["detail"]["cells"]),
            (OPERATOR, &json!(["two", "three"]))
        );
        assert_eq!((text(&there["actor"], "name"), text(&there["actor"], "kind")), ("Ops", "admin_token"));
        assert_eq!(here["request_id"], there["request_id"]);

        let alone = sign_in(&second, OPERATOR).await;
        for path in ["/console/merchants", "/console/audit"] {
            let found = page(&second, &alone, path).await;
            let of_cells = [">Cell</th>", "This cell", "Other cells"];
            assert!(!of_cells.iter().any(|words| found.contains(words)), "{found}");
        }
    }
}

#[tokio::test]
async fn a_page_shows_what_it_has_and_names_the_cells_that_do_not_answer() {
    for engine in engines() {
        let ThreeCells { prepared: [_one, two, three], servers: [first, second, third], cookie } =
            ThreeCells::start(engine).await;
        third.kill();
        second.signal("STOP");
        let begun = Instant::now();
        for (path, row) in [("/console/merchants", "Alder"), ("/console/audit", "Merchant created")] {
            let found = page(&first, &cookie, path).await;
            assert!(found.contains("Cell <strong>two</strong> did not answer within 2 seconds"), "{found}");
            assert!(found.contains("Cell <strong>three</strong> cannot be reached"), "{found}");
            assert!(rows(&found).iter().any(|found| found.contains(row)), "{found}");
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert!(first.log().contains("another cell does not answer"));
        for token in [&two.reader, &three.reader] {
            assert!(!first.log().contains(token.as_str()), "a token is in the log");
        }
    }
}

#[tokio::test]
async fn the_pages_of_all_cells_have_each_merchant_and_event_once() {
    const EACH: usize = 40;
    for engine in engines() {
        let one = Prepared::new(engine, 1, &["M"; EACH]).await;
        let two = Prepared::new(engine, 2, &["M"; EACH]).await;
        let second = two.start(&[]);
        let first = one.start_over(&[("two", &url_of(&second), &two.reader)]);
        let cookie = sign_in(&first, OPERATOR).await;
        let all: BTreeSet<&str> = one.merchants.iter().chain(&two.merchants).map(String::as_str).collect();
        let of_two: BTreeSet<&str> = two.merchants.iter().map(String::as_str).collect();
        for path in ["/console/merchants", "/console/audit?action=merchant.created"] {
            let pages = all_rows(&first, &cookie, path).await;
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [50, 30], "{path}");
            let id = |row: &String| all.iter().copied().find(|id| row.contains(id));
            let seen: Vec<&str> = pages.iter().flatten().filter_map(id).collect();
            assert_eq!((seen.len(), seen.iter().copied().collect::<BTreeSet<_>>()), (2 * EACH, all.clone()));
            let seen: Vec<&str> = seen.into_iter().filter(|id| of_two.contains(id)).collect();
            let newest_first: Vec<&str> = two.merchants.iter().rev().map(String::as_str).collect();
            assert_eq!(seen, newest_first, "{path}");
        }
    }
}

#[tokio::test]
async fn a_merchant_that_moved_is_shown_once_where_it_is() {
    for engine in engines() {
        let one = Prepared::new(engine, 1, &["Alder", "Moved"]).await;
        let two = Prepared::new(engine, 2, &["Birch", "Moved"]).await;
        let moved = match engine {
            Engine::Sqlite => {
                "update merchants set id = x'01a20d60fef67001bce17286a391e4c4', home = 2 where name = 'Moved'"
            }
            Engine::Postgres => {
                "update merchants set id = '01a20d60-fef6-7001-bce1-7286a391e4c4', home = 2 where name = 'Moved'"
            }
        };
        for cell in [&one, &two] {
            let store = open(&cell.database.url).await;
            let mut tx = store.begin().await.expect("the store answers");
            assert_eq!(tx.query(moved).execute().await.expect("the statement is right"), 1);
            tx.commit().await.expect("the store answers");
            store.close().await;
        }
        let second = two.start(&[]);
        let first = one.start_over(&[("two", &url_of(&second), &two.reader)]);
        let cookie = sign_in(&first, OPERATOR).await;
        let shown = async || {
            let mut found = rows(&page(&first, &cookie, "/console/merchants").await);
            found.retain(|row| row.contains("Moved"));
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0)
        };
        let row = shown().await;
        assert!(row.contains(">two</a>") && !row.contains("In another cell"), "{row}");
        second.kill();
        let row = shown().await;
        assert!(row.contains("This cell") && row.contains("In another cell"), "{row}");
    }
}

#[tokio::test]
async fn a_token_goes_to_its_cell_alone_and_can_be_replaced_without_a_restart() {
    for engine in engines() {
        let one = Prepared::new(engine, 1, &["Alder"]).await;
        let two = Prepared::new(engine, 2, &["Birch"]).await;
        let second = two.start(&[]);
        let (odd, elsewhere) = (Receiver::open(), Receiver::open());
        let odd_url = format!("http://{}", odd.address);
        let others = [("two", url_of(&second)), ("odd", odd_url)];
        let wrong = format!("tga_002{}", "0".repeat(43));
        let first =
            one.start_over(&others.each_ref().map(|(name, url)| (*name, url.as_str(), wrong.as_str())));

        let of_merchant = sign_in(&first, OF_MERCHANT).await;
        for path in ["/console/merchants", "/console/audit"] {
            assert_eq!(send(&first, Call::get(path).header("cookie", &of_merchant)).await.status, 403);
        }
        assert!(odd.received().is_empty(), "somebody who may not see the list caused a call");

        let cookie = sign_in(&first, OPERATOR).await;
        let body =
            |text: String| Answering::With { status: 200, headers: Vec::new(), body: Bytes::from(text) };
        let location = vec![("location", format!("http://{}/", elsewhere.address))];
        let many = format!("{{\"items\":[],\"names\":{{}},\"more\":\"{}\"}}", "x".repeat(2 << 20));
        for (answer, expected) in [
            (Answering::With { status: 302, headers: location, body: Bytes::new() }, "answered 302 Found"),
            (Answering::Status(503), "answered 503 Service Unavailable"),
            (Answering::Reset, "cannot be reached"),
            (body("<html>".to_owned()), "answered something that this server cannot read"),
            (body(many), "answered something that this server cannot read"),
        ] {
            odd.answer(answer);
            for path in ["/console/merchants", "/console/audit"] {
                let found = page(&first, &cookie, path).await;
                assert!(found.contains(&format!("Cell <strong>odd</strong> {expected}")), "{found}");
                assert!(
                    found.contains("Cell <strong>two</strong> does not accept this server&#39;s token"),
                    "{found}"
                );
            }
        }
        assert!(elsewhere.received().is_empty(), "a redirect was followed");
        let asked = odd.received();
        assert!(asked.iter().all(|hook| hook.header("authorization") == format!("Bearer {wrong}")));

        one.write_tokens([("two", two.reader.as_str())].into_iter());
        let found = page(&first, &cookie, "/console/merchants").await;
        assert!(found.contains("Birch") && !found.contains("<strong>two</strong>"), "{found}");
        assert!(
            found.contains("Cell <strong>odd</strong> has no token that this server can read"),
            "{found}"
        );
        assert!(!first.log().contains(&wrong) && !first.log().contains(&two.reader), "a token is in the log");
    }
}

#[tokio::test]
async fn a_cell_may_have_a_certificate_of_an_authority_of_the_settings_and_of_no_other_private_one() {
    for engine in engines() {
        let one = Prepared::new(engine, 1, &["Alder"]).await;
        let two = Prepared::new(engine, 2, &["Birch"]).await;
        let file = |name: &str| two.database.directory().join(name).display().to_string();
        let (certificate, other) = (Certificate::new(), Certificate::new());
        certificate.write(two.database.directory());
        std::fs::write(file("other.pem"), other.certificate).expect("the directory can be written");
        let second = two.start(&[
            ("TOLLGATE__SERVER__TLS_CERTIFICATE_FILE", &file("tls.pem")),
            ("TOLLGATE__SERVER__TLS_KEY_FILE", &file("tls.key")),
        ]);
        let plain = Receiver::open();
        let (port, reader) = (second.address.port(), two.reader.as_str());
        let (by_name, by_address) =
            (format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}"));
        let not_tls = format!("https://{}", plain.address);
        let others =
            [("two", by_name.as_str(), reader), ("three", &by_address, reader), ("four", &not_tls, reader)];
        for (ca_file, of_two) in [
            (file("tls.pem"), ">two</a>"),
            (file("other.pem"), "<strong>two</strong> has a certificate whose authority is neither"),
            (String::new(), "<strong>two</strong> has a certificate whose authority is neither"),
        ] {
            let first = one.start_trusting(&ca_file, &others);
            let found = page(&first, &sign_in(&first, OPERATOR).await, "/console/merchants").await;
            assert!(found.contains(of_two), "{ca_file:?}: {found}");
            assert!(found.contains("<strong>four</strong> does not support TLS"), "{found}");
            let is_named = found.contains("<strong>three</strong> has a certificate for another name");
            assert_eq!(is_named, ca_file.ends_with("tls.pem"), "{found}");
        }
        assert!(plain.received().is_empty());

        let mut unusable = Server::command("serve", &one.database);
        unusable.env("TOLLGATE__CELL__ID", "1").env("TOLLGATE__CONSOLE__CELLS", format!("two={by_name}"));
        unusable.env("TOLLGATE__CONSOLE__CELL_TOKENS", format!("two={reader}"));
        unusable.env("TOLLGATE__CONSOLE__CELL_CA_FILE", file("tls.key"));
        let told = String::from_utf8_lossy(&run(&mut unusable).stderr).into_owned();
        assert!(told.contains("tls.key: contains no PEM certificate"), "{told}");
    }
}
