//! Random sequences of everything that can happen to credentials, against a model in memory.
//!
//! Each step goes to one of two replicas through the real router; the model says what must come back,
//! and every few steps each token ever issued is asked about. `TOLLGATE_TEST_SEED` repeats one sequence,
//! which a failure prints; `TOLLGATE_TEST_CASES` asks for more than the usual few.

mod prediction;

use chrono::TimeDelta;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tollgate::domain::clock::Timestamp;
use tollgate::domain::entropy::Entropy;
use tollgate::domain::licence::{self, Product};
use tollgate::domain::merchant::MerchantStatus;
use tollgate::flows::principal::Principal;
use tollgate::store::Engine;

use self::prediction::{Client, Expected, Key, Licence, Merchant, Model, RESTORE_WINDOW, SECOND};
use crate::admin::{introspect_as, service_token};
use crate::support::merchant::{done, plain_key};
use crate::support::{Merchant as Caller, Reply, TestApp};

const STEPS: usize = 120;

/// After this many steps, every token is checked.
const SWEEP_EVERY: usize = 12;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The steps so far, shown when the test fails.
struct Trail {
    engine: Engine,
    seed: u64,
    steps: Vec<String>,
}

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (engine, seed) = (self.engine, self.seed);
            eprintln!("{engine:?}, TOLLGATE_TEST_SEED={seed}; what was done:\n{}", self.steps.join("\n"));
        }
    }
}

/// The server, the model of it, and the dice.
struct Play<'a> {
    replicas: [&'a TestApp; 2],
    callers: Vec<Caller>,
    service: String,
    model: Model,
    dice: StdRng,
    trail: Trail,
    /// Audit events of replays from earlier sequences.
    replays_before: i64,
}

/// One merchant with two keys, the first of which has two clients; and another merchant.
const MERCHANT_OF_KEY: [usize; 3] = [0, 0, 1];
const KEY_OF_CLIENT: [usize; 4] = [0, 0, 1, 2];

impl<'a> Play<'a> {
    async fn begin(replicas: [&'a TestApp; 2], seed: u64) -> Self {
        let app = replicas[0];
        let first = app.merchant().await;
        let second_client = app.client_of(&first).await;
        let second_key = app.key_of(first.id, plain_key()).await;
        let callers = vec![first, second_client, second_key, app.merchant().await];
        let merchant =
            || Merchant { suspended: false, api_keys: Licence::GOOD, enhanced_security: Licence::GOOD };
        let model = Model {
            merchants: vec![merchant(), merchant()],
            keys: MERCHANT_OF_KEY.map(|merchant| Key { merchant, revoked_at: None }).into(),
            clients: KEY_OF_CLIENT.map(|key| Client { key, enabled: true, epoch: 1 }).into(),
            ..Model::default()
        };
        let trail = Trail { engine: app.database.engine, seed, steps: Vec::new() };
        let dice = StdRng::seed_from_u64(seed);
        let service = service_token(app).await;
        let replays_before = replays_on_record(app).await;
        Self { replicas, callers, service, model, dice, trail, replays_before }
    }

    fn now(&self) -> i64 {
        self.replicas[0].now().micros()
    }

    fn below(&mut self, end: usize) -> usize {
        self.dice.random_range(0..end)
    }

    fn replica(&mut self) -> &'a TestApp {
        let which = self.below(2);
        self.replicas[which]
    }

    fn note(&mut self, step: String) {
        let now = Timestamp::from_micros(self.now());
        self.trail.steps.push(format!("{now}  {step}"));
    }

    /// A session and one of its generations, counted from 0, usually one of the last three.
    fn pick(&mut self) -> Option<(usize, usize)> {
        let count = self.model.sessions.len();
        if count == 0 {
            return None;
        }
        // Usually a recent one, because old ones have ended.
        let back = self.below(count.min(4));
        let session = if self.below(4) == 0 { self.below(count) } else { count - 1 - back };
        let generations = self.model.sessions[session].issued.len();
        let age = [0, 0, 0, 0, 1, 1, 2, generations - 1][self.below(8)];
        Some((session, generations - 1 - age.min(generations - 1)))
    }

    async fn step(&mut self) {
        match self.below(24) {
            0..=3 => self.authorize().await,
            4..=9 => self.refresh().await,
            10 => self.verify().await,
            11 => self.introspect().await,
            12 => self.revoke().await,
            13 => self.switch().await,
            14 => self.put_licence().await,
            15 => self.suspend().await,
            16 => self.delete_key().await,
            // Enable things again after a while, or nothing would happen any more.
            17..=18 => self.mend().await,
            _ => self.move_clock(),
        }
    }

    async fn authorize(&mut self) {
        let (client, app, now) = (self.below(4), self.replica(), self.now());
        self.note(format!("client {client} authorizes"));
        let reply = app.send(self.callers[client].authorize()).await;
        match self.model.admission(client, now) {
            None => self.model.start(client, reply.tokens(), now),
            Some(Expected::Refused(status, error)) => drop(reply.refused(status, error)),
            Some(other) => unreachable!("no admission ends in {other:?}"),
        }
    }

    async fn refresh(&mut self) {
        let Some((session, generation)) = self.pick() else { return };
        let owner = self.model.sessions[session].client;
        let client = if self.below(8) == 0 { self.below(4) } else { owner };
        let (app, now) = (self.replica(), self.now());
        let expected = self.model.refresh(client, session, generation, now);
        self.note(format!("client {client} refreshes {session}, generation {generation}: {expected:?}"));
        let of = &self.model.sessions[session];
        let call = self.callers[client].refresh(&of.issued[generation].tokens.refresh);
        let reply = app.send(call).await;
        match expected {
            Expected::Fresh => {
                let tokens = reply.tokens();
                assert!(of.issued.iter().all(|issued| issued.tokens != tokens), "issued before");
                self.model.rotate(session, tokens, now);
            }
            Expected::Same => {
                let last = of.issued.last().expect("a session begins with a pair");
                assert_eq!(reply.tokens(), last.tokens);
            }
            Expected::Refused(status, error) => drop(reply.refused(status, error)),
            Expected::Replay => {
                reply.refused(400, "invalid_grant");
                self.model.sessions[session].revoked = true;
                self.model.replays += 1;
            }
        }
    }

    async fn verify(&mut self) {
        let Some((session, generation)) = self.pick() else { return };
        let owner = self.model.clients[self.model.sessions[session].client].key;
        let key = if self.below(4) == 0 { self.below(3) } else { owner };
        let (app, now) = (self.replica(), self.now());
        let expected = self.model.verify(key, session, generation, now);
        self.note(format!("key {key} verifies {session}, generation {generation}: {expected}"));
        let caller = KEY_OF_CLIENT.iter().position(|of| *of == key).expect("each key has a client");
        let token = &self.model.sessions[session].issued[generation].tokens.access;
        let reply = app.send(self.callers[caller].verify(token)).await;
        assert_eq!(reply.status, expected, "{}", reply.text());
    }

    async fn introspect(&mut self) {
        let Some((session, generation)) = self.pick() else { return };
        let (client, app, now) = (self.below(4), self.replica(), self.now());
        self.note(format!("client {client} asks about {session}, generation {generation}"));
        let token = &self.model.sessions[session].issued[generation].tokens.access;
        let reply = app.send(self.callers[client].introspect(token)).await;
        if let Some(Expected::Refused(status, error)) = self.model.admission(client, now) {
            reply.refused(status, error);
            return;
        }
        let is_own = self.model.sessions[session].client == client;
        is_active(&reply, is_own && self.model.access_is_active(session, generation, now));
    }

    async fn revoke(&mut self) {
        let Some((session, generation)) = self.pick() else { return };
        let owner = self.model.sessions[session].client;
        let client = if self.below(4) == 0 { self.below(4) } else { owner };
        let (app, now, takes_access) = (self.replica(), self.now(), self.below(2) == 0);
        self.note(format!("client {client} revokes {session}, generation {generation}"));
        let tokens = &self.model.sessions[session].issued[generation].tokens;
        let token = if takes_access { &tokens.access } else { &tokens.refresh };
        let reply = app.send(self.callers[client].revoke(token)).await;
        match self.model.admission(client, now) {
            Some(Expected::Refused(status, error)) => drop(reply.refused(status, error)),
            _ => {
                assert_eq!(reply.status, 200, "{}", reply.text());
                self.model.sessions[session].revoked |= client == owner;
            }
        }
    }

    async fn switch(&mut self) {
        let (client, app) = (self.below(4), self.replica());
        let merchant = self.model.merchant_of(client);
        let can_go_on = self.model.merchants[merchant].enhanced_security.is_good(self.now());
        let on = !self.model.clients[client].enabled && can_go_on;
        self.note(format!("client {client} is switched {}", if on { "ON" } else { "OFF" }));
        app.switch(&self.callers[client], on).await;
        self.model.switch(client, on);
    }

    async fn put_licence(&mut self) {
        let (merchant, app, now) = (self.below(2), self.replica(), self.now());
        let ends_in = [1, 30, 3600, 86_400][self.below(4)] * SECOND;
        let licence = match self.below(3) {
            0 => Licence { active: false, expires_at: None },
            _ => Licence { active: true, expires_at: Some(now + ends_in) },
        };
        let product = [Product::ApiKeys, Product::EnhancedSecurity][self.below(2)];
        self.set_licence(app, merchant, product, licence).await;
    }

    async fn set_licence(&mut self, app: &TestApp, merchant: usize, product: Product, licence: Licence) {
        self.note(format!("merchant {merchant}: {product:?} is {licence:?}"));
        let expires_at = licence.expires_at.map(Timestamp::from_micros);
        let put = licence::Licence { active: licence.active, expires_at };
        app.put_licence(self.merchant_id(merchant), product, put).await;
        let merchant = &mut self.model.merchants[merchant];
        match product {
            Product::ApiKeys => merchant.api_keys = licence,
            Product::EnhancedSecurity => merchant.enhanced_security = licence,
        }
    }

    fn merchant_id(&self, merchant: usize) -> tollgate::domain::ids::MerchantId {
        self.callers[if merchant == 0 { 0 } else { 3 }].id
    }

    async fn suspend(&mut self) {
        let (merchant, app) = (self.below(2), self.replica());
        self.note(format!("merchant {merchant} is suspended"));
        app.set_status(self.merchant_id(merchant), MerchantStatus::Suspended).await;
        self.model.merchants[merchant].suspended = true;
    }

    async fn delete_key(&mut self) {
        let (client, app, now) = (self.below(4), self.replica(), self.now());
        let key = &mut self.model.keys[KEY_OF_CLIENT[client]];
        key.revoked_at = key.revoked_at.or(Some(now));
        self.note(format!("the key of client {client} is deleted"));
        done(app.core().revoke_api_key(&Principal::command_line(), self.callers[client].key_id).await);
    }

    /// Undoes whatever stops the clients of a merchant, as far as that can be undone.
    async fn mend(&mut self) {
        let (merchant, app, now) = (self.below(2), self.replica(), self.now());
        for product in [Product::ApiKeys, Product::EnhancedSecurity] {
            self.set_licence(app, merchant, product, Licence::GOOD).await;
        }
        self.note(format!("merchant {merchant} is mended"));
        app.set_status(self.merchant_id(merchant), MerchantStatus::Active).await;
        self.model.merchants[merchant].suspended = false;
        for client in (0..4).filter(|client| MERCHANT_OF_KEY[KEY_OF_CLIENT[*client]] == merchant) {
            let key = &mut self.model.keys[KEY_OF_CLIENT[client]];
            let restored =
                app.core().restore_api_key(&Principal::command_line(), self.callers[client].key_id).await;
            let is_restored = restored.is_ok();
            let can_be = key.revoked_at.is_none_or(|at| now < at + RESTORE_WINDOW);
            assert_eq!(is_restored, can_be, "the key of client {client}");
            if is_restored {
                if key.revoked_at.take().is_some() {
                    for other in (0..4).filter(|other| KEY_OF_CLIENT[*other] == KEY_OF_CLIENT[client]) {
                        self.model.clients[other].epoch += 1;
                    }
                }
            } else {
                // This key and its clients are gone for good.
                continue;
            }
            app.switch(&self.callers[client], true).await;
            self.model.switch(client, true);
        }
    }

    /// Moves the clock a little, a lot, back, or to the exact moment when something ends, or a second before
    /// or after it.
    fn move_clock(&mut self) {
        let now = self.now();
        let ends = self.model.ends();
        let delta = if self.below(2) == 0 && !ends.is_empty() {
            let beside = [-SECOND, -1, 0, 1, SECOND][self.below(5)];
            let end = ends[self.below(ends.len())];
            // Not far back, or everything that had expired would become valid again at once.
            (end + beside - now).max(-2 * 3600 * SECOND)
        } else {
            [1, SECOND, 20 * SECOND, 59 * SECOND, 61 * SECOND, 1800 * SECOND, -SECOND, -3600 * SECOND]
                [self.below(8)]
        };
        self.replicas[0].advance(TimeDelta::microseconds(delta));
        self.note(format!("the clock moves by {delta} us"));
    }

    /// Introspects every token of every session on both replicas.
    async fn sweep(&mut self) {
        let now = self.now();
        let ask = async |app: &TestApp, token: &str, hint: &str, expected: bool| {
            let call =
                introspect_as(&self.service, token).form(&[("token", token), ("token_type_hint", hint)]);
            is_active(&app.send(call).await, expected);
        };
        let mut questions = Vec::new();
        for (session, of) in self.model.sessions.iter().enumerate() {
            for (generation, issued) in of.issued.iter().enumerate() {
                let access = self.model.access_is_active(session, generation, now);
                let refresh = self.model.refresh_is_active(session, generation, now);
                let app = self.replicas[(session + generation) % 2];
                questions.push(ask(app, &issued.tokens.access, "access_token", access));
                questions.push(ask(app, &issued.tokens.refresh, "refresh_token", refresh));
            }
        }
        join_all(questions).await;
    }

    async fn end(self) {
        let replays = replays_on_record(self.replicas[0]).await - self.replays_before;
        assert_eq!(replays, self.model.replays, "replays on record");
    }
}

async fn replays_on_record(app: &TestApp) -> i64 {
    app.number("select count(*) from audit_events where action = 'session.replay_detected'").await
}

#[track_caller]
fn is_active(reply: &Reply, expected: bool) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    assert_eq!(json["active"], expected, "{json}");
    assert!(expected || reply.text() == r#"{"active":false}"#, "{json}");
}

async fn play(engine: Engine) {
    let here = TestApp::with(engine, |settings| {
        settings.limits.failures_per_address_per_minute = 1_000_000;
        // This test moves the clock back, which rate limits do not support, because they use monotonic time.
        settings.limits.new_sessions_per_client_per_minute = 0;
    })
    .await;
    let there = here.replica().await;
    let given = from_environment("TOLLGATE_TEST_SEED");
    let cases = from_environment("TOLLGATE_TEST_CASES").unwrap_or(if given.is_some() { 1 } else { 12 });
    for _ in 0..cases {
        let seed = given.unwrap_or_else(|| u64::from_be_bytes(Entropy::System.bytes()));
        let mut play = Play::begin([&here, &there], seed).await;
        for step in 0..STEPS {
            play.step().await;
            if step % SWEEP_EVERY == SWEEP_EVERY - 1 {
                play.sweep().await;
            }
        }
        play.end().await;
    }
}

#[tokio::test]
async fn sqlite_does_what_the_model_says_whatever_happens() {
    play(Engine::Sqlite).await;
}

#[tokio::test]
async fn postgresql_does_what_the_model_says_whatever_happens() {
    play(Engine::Postgres).await;
}
