//! No issued secret is found in plain text: not in the database, and not in the log at `trace`.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tollgate::store::Engine;

use crate::console::people::{cookie_of, sign_in_form};
use crate::support::app::TOKEN_KEY;
use crate::support::program::{Server, stdout_of, tollgate};
use crate::support::tcp::Client;
use crate::support::{Call, Database, Reply, each_engine, engines};

/// The fields of answers that are secrets.
const SECRET_FIELDS: [&str; 6] =
    ["key", "client_secret", "token", "webhook_secret", "access_token", "refresh_token"];

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct-horse-battery-staple-77";
const DATABASE_PASSWORD: &str = "Tr0ub4dor-and-3";

/// A caller that remembers every secret from its answers.
struct Busy {
    client: Client,
    operator: String,
    secrets: Vec<String>,
}

impl Busy {
    async fn send(&mut self, call: Call) -> Reply {
        let reply = self.client.send(call).await.expect("the server answers");
        if let Ok(Value::Object(fields)) = serde_json::from_slice(&reply.body) {
            let told = SECRET_FIELDS.iter().filter_map(|name| fields.get(*name)?.as_str());
            self.secrets.extend(told.map(str::to_owned));
        }
        reply
    }

    /// A call of the admin API that succeeds.
    async fn admin(&mut self, method: &str, path: &str, body: Value) -> Value {
        let call = Call::new(method.parse().expect("it is a method"), &format!("/admin/v1{path}"))
            .header("authorization", format!("Bearer {}", self.operator))
            .header("idempotency-key", format!("{method}-{path}"))
            .body(Some("application/json"), body.to_string());
        let reply = self.send(call).await;
        assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text());
        serde_json::from_slice(&reply.body).unwrap_or_default()
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

/// Makes every kind of call with a secret, with right, wrong and misplaced secrets. Returns the merchant.
async fn keep_busy(busy: &mut Busy, server: &Server) -> String {
    let merchant = busy.admin("POST", "/merchants", json!({ "name": "Shop", "gateway": "any" })).await;
    let merchant = text(&merchant, "id");
    for product in ["api_keys", "enhanced_security"] {
        let path = format!("/merchants/{merchant}/licences/{product}");
        busy.admin("PUT", &path, json!({ "active": true })).await;
    }
    let settings = json!({ "name": "Till", "environment": "live", "webhook_url": "http://127.0.0.1:9/hook" });
    let made = busy.admin("POST", &format!("/merchants/{merchant}/api-keys"), settings).await;
    text(&made, "webhook_secret");
    let (key_id, key) = (text(&made, "id"), text(&made, "key"));
    let made = busy.admin("POST", &format!("/api-keys/{key_id}/credentials"), json!({})).await;
    let (client_id, secret) = (text(&made, "client_id"), text(&made, "client_secret"));
    let credential = format!("/credentials/{client_id}");
    busy.admin("PATCH", &credential, json!({ "enabled": true })).await;
    let rotated =
        busy.admin("POST", &format!("{credential}/rotate-secret"), json!({ "overlap_secs": 600 })).await;
    let second_secret = text(&rotated, "client_secret");
    let rotated =
        busy.admin("POST", &format!("/api-keys/{key_id}/rotate"), json!({ "overlap_secs": 600 })).await;
    let second_key = text(&rotated, "key");
    let user = json!({ "email": EMAIL, "role": "operator", "password": PASSWORD });
    busy.admin("POST", "/users", user).await;
    let service = json!({ "name": "Service", "role": "operator", "permissions": ["introspect"] });
    busy.admin("POST", "/tokens", service).await;

    let call = |path: &str, key: &str| Call::post(path).key(key);
    let (authorize, refresh) = ("/api/authorize", "/api/refresh_token");
    let own = [("client_id", client_id.as_str()), ("client_secret", secret.as_str())];
    let mut tokens = busy.send(call(authorize, &key).form(&own)).await.tokens();
    busy.send(call(authorize, &second_key).basic(&client_id, &second_secret)).await.tokens();
    for kind in ["form", "json", "multipart", "form"] {
        let fields = [own[0], own[1], ("refresh_token", tokens.refresh.as_str())];
        let call = call(refresh, &key);
        let call = match kind {
            "form" => call.form(&fields),
            "json" => call.json(&fields),
            _ => call.multipart(&fields),
        };
        tokens = busy.send(call).await.tokens();
    }
    let token = [own[0], own[1], ("token", tokens.access.as_str())];
    assert_eq!(busy.send(call("/api/introspect", &key).form(&token)).await.json()["active"], true);
    let verify = Call::get("/api/verify").key(&key);
    assert_eq!(busy.send(verify.clone().header("access-token", &tokens.access)).await.status, 200);
    let bearer = format!("Bearer {}", tokens.access);
    assert_eq!(busy.send(verify.header("authorization", bearer)).await.status, 200);

    // Secrets in the wrong fields.
    let misplaced = [("client_id", secret.as_str()), ("client_secret", key.as_str())];
    busy.send(call(authorize, &key).form(&misplaced)).await.refused(401, "invalid_client");
    let misplaced = [own[0], own[1], ("grant_type", secret.as_str()), (secret.as_str(), "x")];
    busy.send(call(authorize, &key).form(&misplaced)).await.refused(400, "unsupported_grant_type");
    busy.send(call(authorize, &tokens.refresh).form(&own)).await.refused(401, "invalid_client");
    busy.send(
        call(authorize, &key).body(Some("application/json"), format!("{{\"client_secret\":\"{secret}")),
    )
    .await
    .refused(400, "invalid_request");
    busy.send(call(authorize, &key).json(&[own[1], own[1]])).await.refused(400, "invalid_request");
    over_http2(server, &key, &own);

    busy.admin("POST", "/leaked-keys", json!({ "key": second_key })).await;
    at_the_console(busy).await;
    merchant
}

/// A user signs in, first with a typo and then correctly, and opens some pages.
async fn at_the_console(busy: &mut Busy) {
    let slip = sign_in_form(EMAIL, &format!("{PASSWORD}8"));
    assert_eq!(busy.send(slip).await.status, 422);
    let signed_in = busy.send(sign_in_form(EMAIL, PASSWORD)).await;
    assert_eq!(signed_in.status, 303, "{}", signed_in.text());
    let cookie = cookie_of(&signed_in);
    let page = busy.send(Call::get("/console/account").header("cookie", &cookie)).await;
    assert_eq!(page.status, 200);
    busy.secrets.push(cookie.split_once('=').expect("a cookie is a pair").1.to_owned());
}

/// The records that the owner of a merchant may read: exchanges and the audit trail.
async fn records(busy: &mut Busy, merchant: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for (list, holds_one) in [("exchanges", "/api/authorize"), ("audit-events", "credentials.generated")] {
        let path = format!("/admin/v1/merchants/{merchant}/{list}?limit=200");
        let call = Call::get(&path).header("authorization", format!("Bearer {}", busy.operator));
        // Exchanges are written shortly after the answer.
        let started = std::time::Instant::now();
        let text = loop {
            let text = busy.client.send(call.clone()).await.expect("the server answers").text();
            if text.contains(holds_one) {
                break text;
            }
            assert!(started.elapsed() < std::time::Duration::from_secs(30), "{list}: {text}");
        };
        all.extend(text.into_bytes());
    }
    all
}

/// One call with curl over HTTP/2, whose codec has a log of its own.
fn over_http2(server: &Server, key: &str, own: &[(&str, &str); 2]) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--http2-prior-knowledge",
            "--write-out",
            "%{http_version} %{http_code}",
        ])
        .args(["--output", "/dev/null", "--header", &format!("X-API-KEY: {key}")])
        .args(own.iter().flat_map(|(name, value)| ["--data".to_owned(), format!("{name}={value}")]))
        .arg(format!("http://{}/api/authorize", server.address))
        .output()
        .expect("the tests need curl");
    let (wrote, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(wrote, "2 200", "{error}");
}

/// Every form of a secret: its text, its raw bytes, and its bytes in hex.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bare = secret.strip_prefix("tga_").or(secret.strip_prefix("whsec_")).unwrap_or(secret);
    let decoded = hex::decode(bare)
        .ok()
        .or_else(|| URL_SAFE_NO_PAD.decode(bare).ok())
        .or_else(|| STANDARD.decode(bare).ok())
        .filter(|bytes| bytes.len() >= 16);
    let mut forms = vec![secret.as_bytes().to_vec(), bare.as_bytes().to_vec()];
    if let Some(bytes) = decoded {
        forms.extend([hex::encode(&bytes).into_bytes(), bytes]);
    }
    forms
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Everything that the engine stores: for SQLite its files, for PostgreSQL every row as text, with bytes in
/// hex.
async fn dump(database: &Database) -> Vec<u8> {
    let mut all = Vec::new();
    match database.engine {
        Engine::Sqlite => {
            for entry in std::fs::read_dir(database.directory()).expect("the directory is there") {
                let path = entry.expect("the directory is there").path();
                if path.to_string_lossy().contains("tollgate.db") {
                    all.extend(std::fs::read(path).expect("the file can be read"));
                }
            }
        }
        Engine::Postgres => {
            let mut connection = PgConnection::connect(&database.url).await.expect("PostgreSQL answers");
            let tables: Vec<(String,)> =
                sqlx::query_as("select tablename::text from pg_tables where schemaname = 'public'")
                    .fetch_all(&mut connection)
                    .await
                    .expect("PostgreSQL lists its tables");
            for (table,) in tables {
                let rows = AssertSqlSafe(format!("select t::text from {table} t"));
                let rows: Vec<(String,)> =
                    sqlx::query_as(rows).fetch_all(&mut connection).await.expect("the table can be read");
                all.extend(rows.into_iter().flat_map(|(row,)| row.into_bytes()));
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_and_the_log_at_trace_hold_no_secret_in_clear() {
    for engine in engines() {
        let database = Database::fresh(engine).await;
        let with_password = database.url.replace("postgres@", &format!("postgres:{DATABASE_PASSWORD}@"));
        let (directory, url) = (format!("--data-dir={}", database.directory().display()), &with_password);
        let mut add = tollgate(&["operator", "add", "Ada", "--json", &directory]);
        let add = add.env("DATABASE_URL", url).env("TOLLGATE__TOKENS__KEYS", hex::encode(TOKEN_KEY));
        let made: Value = serde_json::from_str(&stdout_of(add)).expect("it is JSON");
        let operator = text(&made, "token");

        let server = Server::start(
            tollgate(&["serve", "--listen=127.0.0.1:0", &directory])
                .env("DATABASE_URL", url)
                .env("TOLLGATE__TOKENS__KEYS", hex::encode(TOKEN_KEY))
                .env("TOLLGATE__LOG__LEVEL", "trace")
                .env("TOLLGATE__WEBHOOKS__ALLOW_HTTP", "true")
                .env("TOLLGATE__WEBHOOKS__ALLOW_PRIVATE_NETWORKS", "true"),
        );
        let client = Client::connect(server.address).await.expect("the server accepts");
        let mut busy = Busy { client, operator: operator.clone(), secrets: vec![operator] };
        let merchant = keep_busy(&mut busy, &server).await;
        let records = records(&mut busy, &merchant).await;
        drop(busy.client);
        server.terminate();
        let (status, log) = server.ended_within(std::time::Duration::from_secs(30));
        assert!(status.success(), "{log}");
        let dump = dump(&database).await;

        // Check that both really contain data.
        let client_id = b"client_id";
        assert!(holds(&dump, client_id) && dump.len() > 10_000, "{engine:?}: no dump");
        assert!(log.contains("TRACE") && log.contains("/api/authorize"), "{engine:?}: no log at trace");

        let constants = [PASSWORD.to_owned(), DATABASE_PASSWORD.to_owned(), hex::encode(TOKEN_KEY)];
        let issued = busy.secrets.len();
        assert!(issued >= 18, "only {issued} secrets were issued");
        for secret in busy.secrets.into_iter().chain(constants) {
            for form in forms(&secret) {
                assert!(!holds(&dump, &form), "{engine:?}: {secret} is in the database");
                assert!(!holds(log.as_bytes(), &form), "{engine:?}: {secret} is in the log");
                assert!(!holds(&records, &form), "{engine:?}: {secret} is in the API details or audit trail");
            }
        }
    }
}

#[tokio::test]
async fn debug_output_of_what_is_kept_in_memory_shows_no_secret() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let tokens = app.tokens(&merchant).await;
        let record = app.core().store.hot().cached_record(merchant.id).expect("the call has loaded it");
        let shown = format!("{record:?} {:?}", app.core().keyring);
        assert!(shown.contains(&merchant.client_id), "{shown}");
        let secrets = [merchant.key, merchant.client_secret, tokens.access, tokens.refresh];
        for secret in secrets.into_iter().chain([hex::encode(TOKEN_KEY)]) {
            for form in forms(&secret) {
                assert!(!holds(shown.as_bytes(), &form), "{secret} is in {shown}");
            }
            // Its hash must not appear either, in any format of bytes.
            let hash = tollgate::domain::secret::SecretHash::of(&secret);
            let decimal = format!("{:?}", hash.bytes());
            assert!(!shown.contains(&hex::encode(hash.bytes())) && !shown.contains(&decimal), "{shown}");
        }
    })
    .await;
}
