//! Authorize: starts a session for client credentials, and issues its first pair of tokens (RFC 6749 4.4).

use zeroize::Zeroizing;

use super::admission::Caller;
use super::error::{Decided, Fault};
use super::failures::Surface;
use super::{Core, DECISIONS_MAX};
use crate::domain::access;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{CredentialId, SessionId};
use crate::domain::reason::Reason;
use crate::domain::record::{ClientRecord, SecretRecord};
use crate::domain::scope::Scopes;
use crate::domain::secret::{PlainSecret, SecretHash};
use crate::domain::session::{Pair, Session};
use crate::store::hot::Open;

/// The client id and secret of a call.
pub struct PresentedClient {
    pub client_id: String,
    pub(super) hash: SecretHash,
    has_nul: bool,
}

impl PresentedClient {
    pub fn new(client_id: String, secret: &PlainSecret) -> Self {
        let has_nul = client_id.contains('\0') || secret.expose().contains('\0');
        Self { client_id, hash: secret.hash(), has_nul }
    }
}

/// The tokens and scopes for a client.
pub struct Issued {
    pub pair: Pair,
    /// The current scopes of the session. `None` means every scope.
    pub scopes: Option<Scopes>,
}

/// An authenticated client.
pub(super) struct Client {
    pub(super) credential: CredentialId,
    pub(super) epoch: i64,
    secret: SecretRecord,
}

impl Core {
    /// Starts a session with the requested scopes, or with all that the client may have.
    pub async fn authorize(
        &self,
        caller: &mut Caller,
        presented: &PresentedClient,
        asked: Option<&Scopes>,
    ) -> Decided<Issued> {
        let mut is_counted = false;
        for _ in 0..DECISIONS_MAX {
            let client = self.admit_client(caller, presented).await?;
            let revision = caller.record.revision;
            let scopes = match granted(caller, &client, asked) {
                Ok(scopes) => scopes,
                Err(reason) => {
                    self.confirm(caller).await?;
                    // The record was outdated, and the client may have more scopes by now.
                    if caller.record.revision != revision {
                        continue;
                    }
                    return Err(reason.into());
                }
            };
            if !is_counted && !self.limits.count_session(client.credential) {
                return Err(Reason::TooManySessions.into());
            }
            is_counted = true;
            let session = Session { scopes, ..self.new_session(caller, &client, self.now()) };
            let open = Open { session: session.clone(), revision };
            if self.store.hot().open_session(open).await? {
                self.counters.issued.add_one();
                self.note_opened(client.credential);
                return Ok(Issued { pair: self.pair_of(&session)?, scopes: session.scopes });
            }
            self.reload(caller).await?;
        }
        Err(Fault::Busy.into())
    }

    /// Authenticates the client, and records the use of its secret and of the key.
    pub(super) async fn admit_client(
        &self,
        caller: &mut Caller,
        presented: &PresentedClient,
    ) -> Decided<Client> {
        let ip = caller.address.ip;
        let decision = |caller: &Caller, now| {
            if presented.has_nul {
                return Err(Reason::NulCharacter);
            }
            access::admit_client(&caller.record, caller.key_id, &presented.client_id, &presented.hash, now)
                .map(|(credential, secret)| Client {
                    credential: credential.id,
                    epoch: credential.epoch,
                    secret: *secret,
                })
        };
        // A secret that is right according to the cache needs no failure left for its address: see
        // `failures`.
        let client = match decision(caller, self.now()) {
            Ok(client) => client,
            Err(_) => self.guard(Surface::Api, ip, self.decide(caller, decision)).await?,
        };
        let merchant = caller.record.id;
        for secret in caller.key_secret().into_iter().chain([&client.secret]) {
            self.note_use(merchant, secret, &caller.address).await?;
        }
        Ok(client)
    }

    /// Authenticates the client with a current record, for calls without a statement that checks it.
    pub async fn authenticate(
        &self,
        caller: &mut Caller,
        presented: &PresentedClient,
    ) -> Decided<ClientRecord> {
        self.confirm(caller).await?;
        let client = self.admit_client(caller, presented).await?;
        Ok(caller.record.credential(client.credential).cloned().ok_or(Reason::ClientUnknown)?)
    }

    /// Makes sure that the record that admitted the client is current, before a refusal that no statement has
    /// checked. If the client is no longer valid, every replica must say so.
    pub(super) async fn confirm_client(
        &self,
        caller: &mut Caller,
        presented: &PresentedClient,
    ) -> Decided<()> {
        let revision = caller.record.revision;
        self.confirm(caller).await?;
        if caller.record.revision == revision {
            return Ok(());
        }
        self.admit_client(caller, presented).await.map(drop)
    }

    fn new_session(&self, caller: &Caller, client: &Client, now: Timestamp) -> Session {
        Session {
            id: SessionId::generate(now, &self.entropy),
            merchant_id: caller.record.id,
            credential_id: client.credential,
            epoch: client.epoch,
            token_key_id: self.keyring.signer().id(),
            secret: Zeroizing::new(self.entropy.bytes::<32>().to_vec()),
            scopes: None,
            generation: 1,
            started_at: now,
            rotated_at: now,
            expires_at: now.plus(self.lifetimes.session_ttl),
            revoked_at: None,
        }
    }

    /// The pair of a session's current generation.
    pub(super) fn pair_of(&self, session: &Session) -> Result<Pair, Fault> {
        let id = session.token_key_id;
        let signer =
            self.keyring.signer_by_id(id).ok_or_else(|| self.key_missing(self.keyring.key_of(id)))?;
        Ok(session.pair(&signer, self.lifetimes, self.now()))
    }
}

fn granted(caller: &Caller, client: &Client, asked: Option<&Scopes>) -> Result<Option<Scopes>, Reason> {
    let credential = caller.record.credential(client.credential).ok_or(Reason::ClientUnknown)?;
    access::grant_scopes(&caller.record, credential, asked)
}
