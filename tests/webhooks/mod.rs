//! Webhooks: every committed event reaches its receiver with a signature, and nothing goes anywhere else.

mod delivery;
mod egress;
mod endpoint;
mod events;
mod log;

use tollgate::config::Settings;
use tollgate::domain::admin::Role;
use tollgate::domain::ids::{ApiKeyId, MerchantId};
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::manage_tokens::NewAdminToken;
use tollgate::flows::principal::Principal;

use crate::support::merchant::{made, plain_key};
use crate::support::receiver::Hook;
use crate::support::{Call, Reply, TestApp, each_engine_with};

/// Test receivers are on this machine and use plain HTTP.
pub(crate) fn to_this_machine(settings: &mut Settings) {
    settings.webhooks.destinations.allow_private_networks = true;
    settings.webhooks.destinations.allow_http = true;
}

/// Runs a test once per engine on an application that may send to this machine.
async fn each(test: impl AsyncFn(TestApp)) {
    each_engine_with(to_this_machine, test).await;
}

/// A merchant with one key that has a webhook.
pub(crate) struct Hooked {
    merchant: MerchantId,
    key: ApiKeyId,
    api_key: String,
    secret: String,
    /// May do everything.
    operator: String,
}

impl TestApp {
    pub(crate) async fn hooked(&self, url: &str) -> Hooked {
        self.hooked_with(NewApiKey { webhook_url: Some(url.to_owned()), ..plain_key() }).await
    }

    async fn hooked_with(&self, key: NewApiKey) -> Hooked {
        let merchant = self.merchant_with(plain_key()).await.id;
        self.further_key(merchant, key).await
    }

    async fn further_key(&self, merchant: MerchantId, key: NewApiKey) -> Hooked {
        let made = made(self.core().create_api_key(&Principal::command_line(), merchant, key).await);
        Hooked {
            merchant,
            key: made.object.id,
            api_key: made.secret.expose().to_owned(),
            secret: made.webhook_secret.expect("a key with a webhook has a secret").expose().to_owned(),
            operator: self.admin_token(Role::Operator, None).await,
        }
    }

    async fn admin_token(&self, role: Role, merchant_id: Option<MerchantId>) -> String {
        let new = NewAdminToken {
            name: "Admin".to_owned(),
            role,
            merchant_id,
            permissions: Vec::new(),
            allowed_ips: Vec::new(),
            expires_at: None,
        };
        let made = made(self.core().create_admin_token(&Principal::command_line(), new).await);
        made.secret.expose().to_owned()
    }

    /// The platform publishes one event of this type and returns its id.
    pub(crate) async fn publish(&self, hooked: &Hooked, event_type: &str) -> String {
        let body = format!(r#"{{"type":"{event_type}","data":{{"payment":"{event_type}"}}}}"#);
        let reply = self.send(hooked.publish(&body)).await;
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.json()["id"].as_str().expect("the event has an id").to_owned()
    }

    async fn log(&self, hooked: &Hooked) -> Vec<serde_json::Value> {
        let reply = self.send(hooked.call(Call::get, "webhook-deliveries?limit=200")).await;
        ok(&reply)["items"].as_array().expect("a list has items").clone()
    }
}

impl Hooked {
    /// A call of the operator about the merchant.
    fn call(&self, method: fn(&str) -> Call, path: &str) -> Call {
        let path = format!("/admin/v1/merchants/{}/{path}", self.merchant);
        method(&path).header("authorization", format!("Bearer {}", self.operator))
    }

    /// A call of the operator about the key.
    fn key_call(&self, method: fn(&str) -> Call, path: &str) -> Call {
        let path = format!("/admin/v1/api-keys/{}{path}", self.key);
        method(&path).header("authorization", format!("Bearer {}", self.operator))
    }

    fn publish(&self, body: &str) -> Call {
        self.call(Call::post, "events").body(Some("application/json"), body.to_owned())
    }

    /// Checks the signature of every webhook with this key's secret.
    #[track_caller]
    fn verify(&self, hooks: &[Hook]) {
        for hook in hooks {
            assert!(hook.is_signed_with(&self.secret), "{hook:?}");
        }
    }
}

#[track_caller]
fn ok(reply: &Reply) -> serde_json::Value {
    assert!((200..300).contains(&reply.status), "{}: {}", reply.status, reply.text());
    reply.json()
}

fn patch(path: &str) -> Call {
    Call::new(axum::http::Method::PATCH, path)
}

fn delete(path: &str) -> Call {
    Call::new(axum::http::Method::DELETE, path)
}

/// The ids, in order.
fn ids(hooks: &[Hook]) -> Vec<&str> {
    hooks.iter().map(Hook::id).collect()
}

fn types(hooks: &[Hook]) -> Vec<String> {
    let mut types: Vec<_> = hooks.iter().map(Hook::event_type).collect();
    types.sort();
    types
}
