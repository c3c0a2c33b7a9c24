//! Token keys on several replicas: an issued token never counts as invalid, in whatever order the keys
//! change.

use std::fs;

use tollgate::app::{App, BuildError, Create};
use tollgate::config::Settings;
use tollgate::domain::entropy::Entropy;
use tollgate::domain::keyring::{KeyState, ServerKey, name_of};
use tollgate::flows::principal::Principal;
use tollgate::store::Engine;
use tollgate::store::token_keys::{self, Replica};
use uuid::Uuid;

use crate::support::merchant::{done, plain_key};
use crate::support::program::{Server, run, stdout_of, tollgate};
use crate::support::receiver::Receiver;
use crate::support::{Database, Merchant, TestApp, each_engine, each_engine_with};

const OLD: [u8; 32] = [0x5a; 32];

/// Key files for two replicas of one database: `here` and `there`.
fn keys_here(settings: &mut Settings) {
    keys_in(settings, "here");
}

fn keys_there(settings: &mut Settings) {
    keys_in(settings, "there");
}

fn keys_in(settings: &mut Settings, name: &str) {
    let path = settings.server.data_dir.join(name);
    if !path.exists() {
        fs::write(&path, hex::encode(OLD)).expect("the directory is there");
    }
    settings.tokens.keys = tollgate::config::TokenKeys::from_file(&path).expect("the test wrote keys");
    settings.tokens.keys_file = Some(path);
}

fn write_keys(app: &TestApp, name: &str, keys: &[[u8; 32]]) {
    let lines: Vec<_> = keys.iter().map(hex::encode).collect();
    fs::write(app.database.directory().join(name), lines.join("\n")).expect("the directory is there");
}

/// What the job does every few seconds.
async fn tick(app: &TestApp) {
    app.core().reread_token_keys();
    app.core().choose_token_key().await.expect("the store answers");
}

/// Makes every key count as known for a long time.
async fn settle(app: &TestApp) {
    app.run_sql("update token_keys set first_seen_at = 0").await;
}

fn signs(app: &TestApp) -> i64 {
    app.core().keyring.signing().id()
}

fn id_of(key: [u8; 32]) -> i64 {
    ServerKey::new(key, KeyState::Sign).id()
}

/// Checks that tokens from one replica work on the other.
async fn assert_good(from: &TestApp, at: &TestApp, merchant: &Merchant, when: &str) {
    let pair = from.tokens(merchant).await;
    assert_eq!(at.send(merchant.verify(&pair.access)).await.status, 200, "{when}");
    let told = at.send(merchant.introspect(&pair.access)).await;
    assert!(told.text().contains("\"active\":true"), "{when}: {}", told.text());
    at.send(merchant.refresh(&pair.refresh)).await.tokens();
}

#[tokio::test]
async fn no_order_of_changes_makes_a_good_token_bad() {
    /// What happens to one of two replicas.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        GetsKeyHere,
        GetsKeyThere,
        TicksHere,
        TicksThere,
    }
    use Step::{GetsKeyHere, GetsKeyThere, TicksHere, TicksThere};
    let steps = [GetsKeyHere, GetsKeyThere, TicksHere, TicksThere];
    each_engine_with(keys_here, async |here| {
        let there = here.replica_at(&here.database.url, keys_there).await;
        let merchant = here.merchant().await;
        let mut current = OLD;
        for order in 0..24 {
            let mut left = steps.to_vec();
            let order: Vec<_> =
                [order / 6, order / 2 % 3, order % 2, 0].iter().map(|place| left.remove(*place)).collect();
            let new: [u8; 32] = Entropy::System.bytes();
            for step in &order {
                match step {
                    GetsKeyHere => write_keys(&here, "here", &[new, current]),
                    GetsKeyThere => write_keys(&there, "there", &[new, current]),
                    TicksHere => tick(&here).await,
                    TicksThere => tick(&there).await,
                }
                settle(&here).await;
                assert_good(&here, &there, &merchant, &format!("{order:?}, after {step:?}")).await;
                assert_good(&there, &here, &merchant, &format!("{order:?}, after {step:?}")).await;
            }
            for app in [&here, &there, &here, &there] {
                tick(app).await;
                settle(app).await;
            }
            assert_eq!((signs(&here), signs(&there)), (id_of(new), id_of(new)), "{order:?}");
            current = new;
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_key_waits_until_those_that_start_now_are_registered_and_a_verify_key_for_ever() {
    each_engine_with(keys_here, async |app| {
        let new = [1; 32];
        write_keys(&app, "here", &[new, OLD]);
        tick(&app).await;
        assert_eq!(signs(&app), id_of(OLD), "known for a moment only");
        settle(&app).await;
        tick(&app).await;
        assert_eq!(signs(&app), id_of(new));

        let path = app.database.directory().join("here");
        let lines =
            format!("{} verify\n{} sign\n{}", hex::encode([2; 32]), hex::encode(new), hex::encode(OLD));
        fs::write(path, lines).expect("the directory is there");
        tick(&app).await;
        settle(&app).await;
        tick(&app).await;
        assert_eq!(signs(&app), id_of(new));
    })
    .await;
}

#[tokio::test]
async fn what_a_key_that_is_not_here_has_signed_is_answered_503_until_it_is() {
    each_engine_with(keys_here, async |here| {
        let merchant = here.merchant().await;
        let there = here.replica_at(&here.database.url, keys_there).await;
        write_keys(&there, "there", &[[1; 32], OLD]);
        tick(&there).await;
        // It is cut off for so long that the other replica counts it as gone.
        here.run_sql("update replicas set seen_at = 0").await;
        settle(&here).await;
        tick(&there).await;
        let pair = there.tokens(&merchant).await;

        for call in [
            merchant.verify(&pair.access),
            merchant.introspect(&pair.access),
            merchant.refresh(&pair.refresh),
            merchant.revoke(&pair.refresh),
        ] {
            let reply = here.send(call).await;
            assert_eq!(reply.status, 503, "{}", reply.text());
            assert!(reply.headers.contains_key("retry-after"));
        }
        write_keys(&here, "here", &[[1; 32], OLD]);
        tick(&here).await;
        assert_eq!(here.send(merchant.verify(&pair.access)).await.status, 200);
        here.send(merchant.refresh(&pair.refresh)).await.tokens();
    })
    .await;
}

/// Starts a replica with only one key, on the database of `app`.
async fn start_with(app: &TestApp, key: [u8; 32], may_give_up: bool) -> Result<App, BuildError> {
    let mut settings = Settings::with_defaults();
    settings.database.url = app.database.url.parse().expect("the tests' own URLs are well-formed");
    settings.tokens.keys = tollgate::config::TokenKeys::new(vec![key]);
    settings.tokens.allow_missing_keys = may_give_up;
    App::build(&settings, Create::Database, app.clock.clone(), Entropy::System).await
}

#[tokio::test]
async fn a_replica_does_not_start_without_a_key_that_is_needed_unless_told_to() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let pair = app.tokens(&merchant).await;
        let new = [1; 32];
        let refused = start_with(&app, new, false).await.err().expect("a key is missing").to_string();
        for word in
            [&name_of(id_of(OLD)), "1 live sessions", "1 running replicas", "--allow-missing-token-keys"]
        {
            assert!(refused.contains(word), "no {word} in: {refused}");
        }
        // It has left nothing that would keep a key from signing.
        assert_eq!(app.number("select count(*) from replicas").await, 1);
        app.run_sql("delete from replicas").await;
        assert!(start_with(&app, new, false).await.is_err(), "its sessions are still there");

        let told = start_with(&app, new, true).await.expect("an operator takes the old key for lost");
        drop(told);
        let settled = start_with(&app, new, false).await.expect("it has to be said once");
        let core = settled.core();
        assert!(core.keyring.is_lost(id_of(OLD)));
        drop(settled);

        // When the key is found again, it is no longer lost.
        app.run_sql("delete from replicas").await;
        let back = app.replica().await;
        back.send(merchant.refresh(&pair.refresh)).await.tokens();
        assert_eq!(app.number("select count(*) from token_keys where lost_at is not null").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_token_of_a_key_that_is_lost_for_good_is_unknown() {
    fn other_key(settings: &mut Settings) {
        settings.tokens.keys = tollgate::config::TokenKeys::new(vec![[1; 32]]);
        settings.tokens.allow_missing_keys = true;
    }
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let pair = app.tokens(&merchant).await;
        let other = app.replica_at(&app.database.url, other_key).await;
        assert_eq!(other.send(merchant.introspect(&pair.access)).await.text(), r#"{"active":false}"#);
        other.send(merchant.refresh(&pair.refresh)).await.refused(400, "invalid_grant");
        other.tokens(&merchant).await;
    })
    .await;
}

#[tokio::test]
async fn resealed_secrets_let_the_old_key_go() {
    fn with_receiver(settings: &mut Settings) {
        keys_here(settings);
        settings.webhooks.destinations.allow_http = true;
        settings.webhooks.destinations.allow_private_networks = true;
    }
    each_engine_with(with_receiver, async |app| {
        let receiver = Receiver::open();
        let mut key = plain_key();
        key.webhook_url = Some(receiver.url());
        app.merchant_with(key).await;
        write_keys(&app, "here", &[[1; 32], OLD]);
        tick(&app).await;
        settle(&app).await;
        tick(&app).await;
        let held = async || {
            let reports = app.core().token_key_reports().await.expect("the store answers");
            reports.iter().map(|report| (report.id, report.held.webhook_secrets)).collect::<Vec<_>>()
        };
        assert_eq!(held().await, [(id_of([1; 32]), 0), (id_of(OLD), 1)]);
        assert_eq!(done(app.core().reseal_secrets(&Principal::command_line()).await), 1);
        assert_eq!(held().await, [(id_of([1; 32]), 1), (id_of(OLD), 0)]);
        assert_eq!(done(app.core().reseal_secrets(&Principal::command_line()).await), 0);
        app.deliver().await;
        assert!(!receiver.take().is_empty(), "it signs as before");
    })
    .await;
}

#[test]
fn rotate_puts_a_key_into_the_file_that_a_running_server_takes_up() {
    let database = Database::without_schema(Engine::Sqlite);
    let data_dir = format!("--data-dir={}", database.directory().display());
    stdout_of(&mut tollgate(&["operator", "add", "Ada", &data_dir]));
    let file = database.directory().join("token.keys");
    let old = fs::read_to_string(&file).expect("it was made");
    let server = Server::start(&mut tollgate(&["serve", "--listen=127.0.0.1:0", &data_dir]));

    let made: serde_json::Value =
        serde_json::from_str(&stdout_of(&mut tollgate(&["keys", "rotate", "--json", &data_dir])))
            .expect("it is JSON");
    let both = fs::read_to_string(&file).expect("it is there");
    assert!(both.ends_with(&old) && both.len() == 2 * old.len(), "{both}");
    server.signal("HUP");
    server.wait_for_log("the token keys were replaced");

    let listed: serde_json::Value =
        serde_json::from_str(&stdout_of(&mut tollgate(&["keys", "--json", &data_dir]))).expect("it is JSON");
    let states: Vec<_> = listed["items"].as_array().into_iter().flatten().map(|key| &key["state"]).collect();
    assert_eq!(states, ["waits to sign", "signs"], "{listed}");
    assert_eq!(listed["items"][0]["id"], made["id"]);
    assert!(!listed.to_string().contains(old.trim()), "a key in clear");
}

#[test]
fn a_restored_database_without_its_keys_gets_no_new_ones() {
    let database = Database::without_schema(Engine::Sqlite);
    let data_dir = format!("--data-dir={}", database.directory().display());
    stdout_of(&mut tollgate(&["operator", "add", "Ada", &data_dir]));
    let serve = || tollgate(&["serve", "--listen=127.0.0.1:0", &data_dir]);
    let server = Server::start(&mut serve());
    let file = database.directory().join("token.keys");
    fs::remove_file(&file).expect("it was made");
    server.kill();
    let output = run(&mut serve());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("--allow-missing-token-keys"), "{told}");
    assert!(!file.exists());
    Server::start(serve().arg("--allow-missing-token-keys"));
    assert!(file.exists());
}

#[tokio::test]
async fn new_sessions_have_the_current_form_once_every_running_replica_knows_it_and_keep_it() {
    each_engine(async |app| {
        let merchant = app.merchant().await;
        let other = app.replica().await;
        let of_current_form = async || {
            app.number("select count(*) from sessions where token_key_id = -1 - (select id from token_keys)")
                .await
        };

        // A replica of the release before announces the ids of its keys only.
        let (id, earlier) = (id_of(OLD), Uuid::from_u128(7));
        let mut tx = app.core().store.begin().await.expect("the store answers");
        let announced = Replica { id: earlier, token_keys: format!("[{id}]"), signs_with: id };
        token_keys::beat(&mut tx, announced).await.expect("the store answers");
        tx.commit().await.expect("the store answers");
        tick(&app).await;
        let before = app.tokens(&merchant).await;
        assert_eq!(of_current_form().await, 0);

        let mut db = app.core().store.write().await.expect("the store answers");
        token_keys::leave(&mut db, earlier).await.expect("the store answers");
        drop(db);
        tick(&app).await;
        let after = app.tokens(&merchant).await;
        assert_eq!(of_current_form().await, 1);

        for pair in [before, after] {
            assert_eq!(other.send(merchant.verify(&pair.access)).await.status, 200);
            // A repeated rotation gives the same pair on every replica.
            let renewed = other.send(merchant.refresh(&pair.refresh)).await.tokens();
            let repeated = app.send(merchant.refresh(&pair.refresh)).await.tokens();
            assert_eq!((&renewed.access, &renewed.refresh), (&repeated.access, &repeated.refresh));
        }
        assert_eq!(of_current_form().await, 1);
        let reports = app.core().token_key_reports().await.expect("the store answers");
        assert_eq!(
            reports.iter().map(|report| (report.id, report.held.sessions)).collect::<Vec<_>>(),
            [(id, 2)]
        );
    })
    .await;
}
