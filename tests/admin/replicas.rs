//! A change on one replica takes effect on the other at its next call.

use serde_json::{Value, json};
use tollgate::store::Engine;

use super::{Admin, authorize, text, verify};
use crate::support::{Call, TestApp, Tokens};

/// Two replicas on one PostgreSQL, and a session that both have served.
struct Two {
    a: TestApp,
    b: TestApp,
    token: String,
    merchant: String,
    key: Value,
    client: Value,
}

impl Two {
    async fn start() -> Self {
        let a = TestApp::new(Engine::Postgres).await;
        let b = a.replica().await;
        let operator = Admin::operator(&a).await;
        let merchant = operator.licensed_merchant("g").await;
        let key = operator.key(&merchant, json!({})).await;
        let client = operator.credentials(&key).await;
        let token = operator.token.clone();
        Self { a, b, token, merchant, key, client }
    }

    fn operator(&self) -> Admin<'_> {
        Admin { app: &self.a, token: self.token.clone() }
    }

    /// A session that the second replica has seen, so that it has the merchant's record in memory.
    async fn session(&self) -> Tokens {
        let tokens = self.b.send(authorize(&self.key, &self.client)).await.tokens();
        assert_eq!(self.b.send(verify(&self.key, &tokens.access)).await.status, 200);
        tokens
    }

    fn refresh(&self, tokens: &Tokens) -> Call {
        Call::post("/api/refresh_token").key(text(&self.key, "key")).form(&[
            ("client_id", text(&self.client, "client_id")),
            ("client_secret", text(&self.client, "client_secret")),
            ("refresh_token", &tokens.refresh),
        ])
    }

    /// Checks that neither token of a session works on the second replica.
    async fn must_be_stopped(&self, tokens: &Tokens) {
        let verified = self.b.send(verify(&self.key, &tokens.access)).await;
        assert!([401, 403].contains(&verified.status), "{} {}", verified.status, verified.text());
        let refreshed = self.b.send(self.refresh(tokens)).await;
        assert!([400, 401].contains(&refreshed.status), "{} {}", refreshed.status, refreshed.text());
    }
}

#[tokio::test]
async fn switching_off_revoking_suspending_and_lapsing_hold_at_the_other_replica_at_once() {
    let two = Two::start().await;
    let operator = two.operator();
    let credentials = format!("/credentials/{}", text(&two.client, "client_id"));
    let key = format!("/api-keys/{}", text(&two.key, "id"));
    let merchant = format!("/merchants/{}", two.merchant);
    for round in 0..20 {
        let tokens = two.session().await;
        // Switched OFF or with its key revoked, a session is over, whatever is undone later.
        let stops_for_good = matches!(round % 5, 0 | 1);
        match round % 5 {
            0 => drop(operator.patch(&credentials, json!({ "enabled": false })).await.ok()),
            1 => assert_eq!(operator.delete(&key).await.status, 204),
            2 => drop(operator.patch(&merchant, json!({ "status": "suspended" })).await.ok()),
            3 => {
                let licence = format!("{merchant}/licences/enhanced_security");
                operator.put(&licence, json!({ "active": false })).await.ok();
            }
            _ => drop(operator.patch(&key, json!({ "allowed_ips": ["192.0.2.1"] })).await.ok()),
        }
        two.must_be_stopped(&tokens).await;
        operator.patch(&credentials, json!({ "enabled": true })).await;
        operator.post(&format!("{key}/restore"), json!({})).await.ok();
        operator.patch(&merchant, json!({ "status": "active" })).await.ok();
        operator.put(&format!("{merchant}/licences/enhanced_security"), json!({ "active": true })).await.ok();
        operator.patch(&credentials, json!({ "enabled": true })).await.ok();
        operator.patch(&key, json!({ "allowed_ips": [] })).await.ok();
        let verified = two.b.send(verify(&two.key, &tokens.access)).await;
        let expected = if stops_for_good { 401 } else { 200 };
        assert_eq!(verified.status, expected, "restored, round {round}: {}", verified.text());
    }
}

#[tokio::test]
async fn a_session_ended_at_one_replica_is_over_at_the_other() {
    let two = Two::start().await;
    let tokens = two.session().await;
    let sessions = two.operator().get(&format!("/merchants/{}/sessions", two.merchant)).await.ok();
    let path = format!("/sessions/{}", text(&sessions["items"][0], "id"));
    assert_eq!(two.operator().delete(&path).await.status, 204);
    two.must_be_stopped(&tokens).await;
}

#[tokio::test]
async fn a_key_rotated_at_one_replica_works_at_the_other() {
    let two = Two::start().await;
    two.session().await;
    let path = format!("/api-keys/{}/rotate", text(&two.key, "id"));
    let new = two.operator().post(&path, json!({ "overlap_secs": 0 })).await.created();
    two.b.send(authorize(&new, &two.client)).await.tokens();
    two.a.send(authorize(&two.key, &two.client)).await.refused(401, "invalid_client");
    two.b.send(authorize(&two.key, &two.client)).await.refused(401, "invalid_client");
}
