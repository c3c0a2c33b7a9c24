//! Refreshes at the same time as the end of their session: once the end is acknowledged, no token of that
//! session works, on either of two replicas, not even one that was issued at the same moment.

use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::sync::watch;
use tollgate::config::Settings;
use tollgate::domain::licence::{Licence, Product};
use tollgate::flows::manage_keys::ApiKeyChanges;
use tollgate::flows::principal::Principal;

use crate::admin::{introspect_as, service_token};
use crate::concurrency::rounds;
use crate::support::merchant::done;
use crate::support::{Merchant, TestApp, Tokens, each_engine_with};

/// This test presents hundreds of ended tokens, which would look like guessing.
fn patient(settings: &mut Settings) {
    settings.limits.failures_per_address_per_minute = 1_000_000;
}

/// How many refreshes are made: enough that some are still running at the end.
const REFRESHES_MAX: usize = 6;

/// Two replicas on one database, and a service that can introspect every token.
struct Two {
    here: TestApp,
    there: TestApp,
    merchant: Merchant,
    service: String,
}

/// The pairs of one session as they are issued.
struct Issued {
    all: Mutex<Vec<Tokens>>,
    count: watch::Sender<usize>,
}

impl Issued {
    fn new(first: Tokens) -> Self {
        Self { all: Mutex::new(vec![first]), count: watch::Sender::new(1) }
    }

    fn add(&self, tokens: Tokens) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&tokens) {
            all.push(tokens);
        }
        self.count.send_replace(all.len());
    }

    fn so_far(&self) -> Vec<Tokens> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reaches(&self, count: usize) {
        let mut reached = self.count.subscribe();
        reached.wait_for(|issued| *issued >= count).await.expect("the sender is ours");
    }
}

impl Two {
    async fn over(app: TestApp) -> Self {
        let here = app.replica().await;
        let merchant = app.merchant().await;
        let service = service_token(&app).await;
        Self { here, there: app, merchant, service }
    }

    /// Refreshes the session repeatedly until it is refused or has done enough. Each time, two callers of
    /// each replica present the same token, so that there are refreshes everywhere when the session ends.
    async fn refresh(&self, issued: &Issued) {
        for _ in 0..REFRESHES_MAX {
            let last = issued.so_far().pop().expect("a session begins with a pair");
            let replicas = [&self.here, &self.there, &self.there, &self.here];
            let calls = replicas.map(|replica| replica.send(self.merchant.refresh(&last.refresh)));
            let mut is_over = false;
            for reply in join_all(calls).await {
                match reply.status {
                    200 => issued.add(reply.tokens()),
                    400 | 401 => is_over = true,
                    other => panic!("{other}: {}", reply.text()),
                }
            }
            if is_over {
                return;
            }
        }
    }

    /// Checks on both replicas that no token of these pairs works.
    async fn are_dead(&self, pairs: &[Tokens], round: usize) {
        let checks = pairs.iter().flat_map(|pair| [(&self.here, pair), (&self.there, pair)]);
        join_all(checks.map(|(replica, pair)| self.is_dead(replica, pair, round))).await;
    }

    async fn is_dead(&self, replica: &TestApp, pair: &Tokens, round: usize) {
        for token in [&pair.access, &pair.refresh] {
            let call = introspect_as(&self.service, token);
            assert_eq!(replica.send(call).await.text(), r#"{"active":false}"#, "round {round}");
        }
        let reply = replica.send(self.merchant.verify(&pair.access)).await;
        assert!([401, 403].contains(&reply.status), "round {round}: {}", reply.status);
    }

    /// Checks that both replicas accept the token only for the one scope that is left.
    async fn may_no_longer_write(&self, pair: &Tokens, round: usize) {
        for replica in [&self.here, &self.there] {
            let introspected = replica.send(introspect_as(&self.service, &pair.access)).await.ok();
            assert_eq!(introspected["scope"], "read", "round {round}: {introspected}");
            let call = self.merchant.verify(&pair.access).to("/api/verify-scope/write");
            assert_eq!(replica.send(call).await.status, 403, "round {round}");
        }
    }

    /// Runs `end` and refreshes on both replicas at the same time. In each round, `end` comes after a
    /// different number of refreshes.
    async fn race(
        &self,
        end: impl AsyncFn(&TestApp, &Merchant, &Tokens),
        mend: impl AsyncFn(&TestApp, &Merchant),
        is_final: bool,
    ) {
        for round in 0..rounds() {
            let first = self.there.tokens(&self.merchant).await;
            let issued = Issued::new(first.clone());
            let ending = async {
                issued.reaches(1 + round % 4).await;
                end(&self.here, &self.merchant, &first).await;
                // The end is acknowledged. Earlier tokens must stop working at once, while others keep
                // refreshing.
                self.are_dead(&issued.so_far(), round).await;
            };
            tokio::join!(ending, self.refresh(&issued));
            let all = issued.so_far();
            self.are_dead(&all, round).await;

            mend(&self.here, &self.merchant).await;
            if is_final {
                self.are_dead(&all, round).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_revocation_that_meets_refreshes_no_token_of_the_session_is_active() {
    each_engine_with(patient, async |app| {
        let two = Two::over(app).await;
        let end = async |app: &TestApp, merchant: &Merchant, tokens: &Tokens| {
            let reply = app.send(merchant.revoke(&tokens.access)).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        };
        two.race(end, async |_, _| {}, true).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_switch_to_off_that_meets_refreshes_no_token_of_the_client_is_active() {
    each_engine_with(patient, async |app| {
        let two = Two::over(app).await;
        let end = async |app: &TestApp, merchant: &Merchant, _: &Tokens| app.switch(merchant, false).await;
        two.race(end, async |app, merchant| app.switch(merchant, true).await, true).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_lapse_that_meets_refreshes_no_token_of_the_merchant_is_active() {
    each_engine_with(patient, async |app| {
        let two = Two::over(app).await;
        let put = async |app: &TestApp, merchant: &Merchant, active| {
            let licence = Licence { active, expires_at: None };
            app.put_licence(merchant.id, Product::EnhancedSecurity, licence).await;
        };
        let end = async |app: &TestApp, merchant: &Merchant, _: &Tokens| put(app, merchant, false).await;
        two.race(end, async |app, merchant| put(app, merchant, true).await, false).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_deletion_of_the_key_that_meets_refreshes_no_token_of_it_is_active() {
    each_engine_with(patient, async |app| {
        let two = Two::over(app).await;
        let by = Principal::command_line();
        let end = async |app: &TestApp, merchant: &Merchant, _: &Tokens| {
            done(app.core().revoke_api_key(&by, merchant.key_id).await);
        };
        let mend = async |app: &TestApp, merchant: &Merchant| {
            done(app.core().restore_api_key(&by, merchant.key_id).await);
        };
        two.race(end, mend, false).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_scope_is_taken_away_no_replica_grants_or_passes_it() {
    each_engine_with(patient, async |app| {
        let two = Two::over(app).await;
        let limit = async |scopes: &[&str]| {
            let scopes = Some(Some(scopes.iter().map(|&scope| scope.to_owned()).collect()));
            let changes = ApiKeyChanges { scopes, ..ApiKeyChanges::default() };
            let core = two.here.core();
            done(core.update_api_key(&Principal::command_line(), two.merchant.key_id, None, changes).await);
        };
        for round in 0..rounds() {
            limit(&["read", "write"]).await;
            let issued = Issued::new(two.there.tokens(&two.merchant).await);
            let narrowing = async {
                issued.reaches(1 + round % 4).await;
                limit(&["read"]).await;
                // The change is acknowledged, so neither existing nor new tokens may have the scope.
                for pair in issued.so_far() {
                    two.may_no_longer_write(&pair, round).await;
                }
                let reply = two.there.send(two.merchant.authorize()).await;
                assert_eq!(reply.json()["scope"], "read", "round {round}");
            };
            tokio::join!(narrowing, two.refresh(&issued));
            for pair in issued.so_far() {
                two.may_no_longer_write(&pair, round).await;
            }
        }
    })
    .await;
}
