//! Merchants for tests, made with the real flows.

use tollgate::domain::api_key::Environment;
use tollgate::domain::ids::{ApiKeyId, MerchantId};
use tollgate::domain::licence::{Licence, Product};
use tollgate::domain::merchant::MerchantStatus;
use tollgate::flows::error::Managed;
use tollgate::flows::idempotency::Answer;
use tollgate::flows::manage_credentials::CredentialChanges;
use tollgate::flows::manage_keys::NewApiKey;
use tollgate::flows::manage_merchants::{MerchantChanges, NewMerchant};
use tollgate::flows::principal::Principal;

use super::{Call, TestApp, Tokens};

/// A merchant with both licences, one API key, and one client whose Enhanced Security is ON.
#[derive(Clone, Debug)]
pub(crate) struct Merchant {
    pub(crate) id: MerchantId,
    pub(crate) key_id: ApiKeyId,
    pub(crate) key: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

impl Merchant {
    /// The fields that authenticate the client, followed by others.
    pub(crate) fn fields<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [("client_id", self.client_id.as_str()), ("client_secret", self.client_secret.as_str())];
        own.into_iter().chain(more.iter().copied()).collect()
    }

    /// `POST /api/authorize` with only the key. The test adds the body.
    pub(crate) fn call(&self) -> Call {
        Call::post("/api/authorize").key(&self.key)
    }

    pub(crate) fn authorize(&self) -> Call {
        self.call().form(&self.fields(&[]))
    }

    pub(crate) fn refresh(&self, refresh_token: &str) -> Call {
        self.call().to("/api/refresh_token").form(&self.fields(&[("refresh_token", refresh_token)]))
    }

    pub(crate) fn introspect(&self, token: &str) -> Call {
        self.call().to("/api/introspect").form(&self.fields(&[("token", token)]))
    }

    pub(crate) fn revoke(&self, token: &str) -> Call {
        self.call().to("/api/revoke").form(&self.fields(&[("token", token)]))
    }

    /// Forward authentication with the key and an access token.
    pub(crate) fn verify(&self, access_token: &str) -> Call {
        Call::get("/api/verify").key(&self.key).header("access-token", access_token)
    }
}

/// The settings of a key that may be used from anywhere and has no webhook.
pub(crate) fn plain_key() -> NewApiKey {
    NewApiKey::named("Till", Environment::Sandbox)
}

/// The object that was created.
#[track_caller]
pub(crate) fn made<T>(managed: Managed<Answer<T>>) -> T {
    done(managed).made().expect("without a key for it, nothing is answered again")
}

/// The result of a management flow.
#[track_caller]
pub(crate) fn done<T>(managed: Managed<T>) -> T {
    managed.expect("the change is made")
}

impl TestApp {
    pub(crate) async fn merchant(&self) -> Merchant {
        self.merchant_with(plain_key()).await
    }

    pub(crate) async fn merchant_with(&self, key: NewApiKey) -> Merchant {
        let (core, by) = (self.core(), Principal::command_line());
        let new = NewMerchant { name: "Corner shop".to_owned(), gateway: "demo_gateway".to_owned() };
        let merchant = made(core.create_merchant(&by, new).await);
        for product in [Product::ApiKeys, Product::EnhancedSecurity] {
            self.put_licence(merchant.id, product, Licence { active: true, expires_at: None }).await;
        }
        self.key_of(merchant.id, key).await
    }

    /// Another key of a merchant, with its own client.
    pub(crate) async fn key_of(&self, merchant: MerchantId, key: NewApiKey) -> Merchant {
        let key = made(self.core().create_api_key(&Principal::command_line(), merchant, key).await);
        let unfinished = Merchant {
            id: merchant,
            key_id: key.object.id,
            key: key.secret.expose().to_owned(),
            client_id: String::new(),
            client_secret: String::new(),
        };
        self.client_of(&unfinished).await
    }

    /// The same merchant and key with another client, switched ON.
    pub(crate) async fn client_of(&self, merchant: &Merchant) -> Merchant {
        let by = Principal::command_line();
        let made = made(self.core().generate_credentials(&by, merchant.key_id, None).await);
        let client = Merchant {
            client_id: made.object.client_id,
            client_secret: made.secret.expose().to_owned(),
            ..merchant.clone()
        };
        self.switch(&client, true).await;
        client
    }

    /// Switches Enhanced Security.
    pub(crate) async fn switch(&self, client: &Merchant, on: bool) {
        let (by, changes) = (Principal::command_line(), CredentialChanges::switch(on));
        done(self.core().update_credentials(&by, &client.client_id, None, changes).await);
    }

    pub(crate) async fn put_licence(&self, merchant: MerchantId, product: Product, licence: Licence) {
        done(self.core().put_licence(&Principal::command_line(), merchant, product, licence).await);
    }

    /// Suspends a merchant, or makes it active again.
    pub(crate) async fn set_status(&self, merchant: MerchantId, status: MerchantStatus) {
        let changes = MerchantChanges { status: Some(status), ..MerchantChanges::default() };
        done(self.core().update_merchant(&Principal::command_line(), merchant, None, changes).await);
    }

    /// A new session of a client.
    pub(crate) async fn tokens(&self, merchant: &Merchant) -> Tokens {
        self.send(merchant.authorize()).await.tokens()
    }
}
