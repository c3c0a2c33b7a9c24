//! The server's token keys. They sign tokens, and encrypt secrets that must be readable again.
//!
//! One key signs, and all keys verify. The replicas agree on the key that signs
//! ([`crate::flows::token_keys`]), so that no replica signs with a key that another one does not have. A
//! key's id is derived from the key itself, so all replicas use the same id.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use ring::hmac;
use sha2::{Digest, Sha256};
use strum::{EnumString, IntoStaticStr};
use zeroize::Zeroizing;

use super::entropy::Entropy;
use super::token::TokenKind;

/// The id of a server key.
pub type ServerKeyId = i64;

/// What an operator allows a key to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum KeyState {
    /// Sign once every replica has the key, and verify.
    Sign,
    /// Only verify what it signed before.
    Verify,
}

pub struct ServerKey {
    id: ServerKeyId,
    state: KeyState,
    bytes: Zeroizing<[u8; 32]>,
    /// Derived for tokens, with the first block of both hashes done.
    tokens: hmac::Key,
}

impl ServerKey {
    pub fn new(bytes: [u8; 32], state: KeyState) -> Self {
        let digest = Sha256::new().chain_update(b"tollgate server key id").chain_update(bytes).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        let tokens = hmac::Key::new(hmac::HMAC_SHA256, &*derive(&bytes, b"tollgate", b"token"));
        Self { id: i64::from_be_bytes(id), state, bytes: Zeroizing::new(bytes), tokens }
    }

    pub fn fresh(entropy: &Entropy) -> Self {
        Self::new(entropy.bytes(), KeyState::Sign)
    }

    pub const fn id(&self) -> ServerKeyId {
        self.id
    }

    pub const fn state(&self) -> KeyState {
        self.state
    }

    /// Derives a key with HKDF-SHA256 (RFC 5869). `salt` binds the result to one row, `info` to one use.
    pub fn derive(&self, salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(&self.bytes, salt, info)
    }
}

fn derive(key: &[u8; 32], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand(info, &mut *derived)
        .expect("32 bytes are within what HKDF-SHA256 can expand to");
    derived
}

/// How the MAC of a token is made, see [`super::token`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenForm {
    /// Known to every release.
    #[default]
    First,
    Current,
}

/// What signs the tokens of a session: a server key and a form.
///
/// A session keeps its signer, so that a repeated rotation gives the same pair on every replica. A row names
/// it by the id of the key for the first form, and by the complement of that id for the current one. A replica
/// of an earlier release does not know that id. It answers 503 then, and does not call a good token invalid.
pub struct Signer {
    key: Arc<ServerKey>,
    form: TokenForm,
}

/// The name of a [`Signer`] in a session's row.
pub type SignerId = i64;

impl Signer {
    pub fn id(&self) -> SignerId {
        signer_id(self.key.id, self.form)
    }

    /// The MAC of a token. The caller uses the start of it.
    pub(super) fn mac(&self, kind: TokenKind, session_secret: &[u8], claims: &[u8]) -> [u8; 32] {
        let signed = match self.form {
            TokenForm::First => {
                let key = self.key.derive(session_secret, kind.info());
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*key), claims)
            }
            TokenForm::Current => {
                let mut context = hmac::Context::with_key(&self.key.tokens);
                context.update(session_secret);
                context.update(claims);
                context.sign()
            }
        };
        signed.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }
}

pub const fn signer_id(key: ServerKeyId, form: TokenForm) -> SignerId {
    match form {
        TokenForm::First => key,
        TokenForm::Current => !key,
    }
}

/// At least one server key, newest first.
struct Ring {
    keys: Vec<Arc<ServerKey>>,
    /// The index of the key that signs.
    signing: usize,
    /// The form of the tokens of new sessions.
    form: TokenForm,
    /// Keys that are not here but that others have or had.
    absent: Vec<Absent>,
}

/// A key that is not here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Absent {
    pub id: ServerKeyId,
    /// An operator has given it up. Tokens that it signed count as unknown.
    pub is_lost: bool,
}

/// The current keys. They are replaced as a whole when an operator adds a key or another key begins to sign.
/// Reading takes no lock.
pub struct Keyring(ArcSwap<Ring>);

impl Keyring {
    /// Keys that may all sign. `None` if there is no key.
    pub fn new(keys: &[[u8; 32]]) -> Option<Self> {
        Self::of(keys.iter().map(|key| ServerKey::new(*key, KeyState::Sign)))
    }

    /// The newest key that may sign does so until [`Keyring::settle`]. `None` if there is no key.
    pub fn of(keys: impl IntoIterator<Item = ServerKey>) -> Option<Self> {
        let keys: Vec<_> = keys.into_iter().map(Arc::new).collect();
        let signing = keys.iter().position(|key| key.state == KeyState::Sign).unwrap_or(0);
        (!keys.is_empty()).then(|| {
            let (form, absent) = (TokenForm::default(), Vec::new());
            Self(ArcSwap::from_pointee(Ring { keys, signing, form, absent }))
        })
    }

    /// All keys, newest first.
    pub fn keys(&self) -> Vec<Arc<ServerKey>> {
        self.0.load().keys.clone()
    }

    /// The key that signs and seals.
    pub fn signing(&self) -> Arc<ServerKey> {
        let ring = self.0.load();
        Arc::clone(&ring.keys[ring.signing])
    }

    /// What signs the tokens of new sessions.
    pub fn signer(&self) -> Signer {
        let ring = self.0.load();
        Signer { key: Arc::clone(&ring.keys[ring.signing]), form: ring.form }
    }

    /// What signs the tokens of a session. `None` if its key is not here.
    pub fn signer_by_id(&self, id: SignerId) -> Option<Signer> {
        let ring = self.0.load();
        ring.keys.iter().find_map(|key| {
            let form = [TokenForm::Current, TokenForm::First]
                .into_iter()
                .find(|form| signer_id(key.id, *form) == id)?;
            Some(Signer { key: Arc::clone(key), form })
        })
    }

    /// The key of a signer. If nobody is known to have such a key, we cannot tell the forms apart, and this is
    /// the signer's own id.
    pub fn key_of(&self, id: SignerId) -> ServerKeyId {
        let ring = self.0.load();
        let of_current = !id;
        let is_known =
            |id| ring.keys.iter().any(|key| key.id == id) || ring.absent.iter().any(|key| key.id == id);
        if !is_known(id) && is_known(of_current) { of_current } else { id }
    }

    pub fn by_id(&self, id: ServerKeyId) -> Option<Arc<ServerKey>> {
        self.0.load().keys.iter().find(|key| key.id == id).cloned()
    }

    /// Whether everything that this key signed counts as invalid. `false` for a key that is only not here
    /// yet, because we cannot say whether its signatures are valid.
    pub fn is_lost(&self, id: ServerKeyId) -> bool {
        self.0.load().absent.iter().any(|key| key.id == id && key.is_lost)
    }

    /// The missing key that is needed to check this seal. `None` if the key is here or lost.
    pub fn missing_for(&self, sealed: &[u8]) -> Option<ServerKeyId> {
        let id = sealer(sealed)?;
        (self.by_id(id).is_none() && !self.is_lost(id)).then_some(id)
    }

    /// Replaces the keys with those from the key file. A key that is no longer among `keys` still verifies
    /// until the next start, which checks what still needs it. Returns whether something has changed.
    pub fn replace(&self, keys: Vec<ServerKey>) -> bool {
        let old = self.0.load_full();
        let (signing, mut keys) =
            (old.keys[old.signing].id, keys.into_iter().map(Arc::new).collect::<Vec<_>>());
        for gone in
            old.keys.iter().filter(|gone| keys.iter().all(|key| key.id != gone.id)).collect::<Vec<_>>()
        {
            keys.push(Arc::new(ServerKey::new(*gone.bytes, KeyState::Verify)));
        }
        let same = |a: &Arc<ServerKey>, b: &Arc<ServerKey>| a.id == b.id && a.state == b.state;
        if keys.len() == old.keys.len() && keys.iter().zip(&old.keys).all(|(a, b)| same(a, b)) {
            return false;
        }
        let signing = keys.iter().position(|key| key.id == signing).unwrap_or(0);
        self.0.store(Arc::new(Ring { keys, signing, form: old.form, absent: old.absent.clone() }));
        true
    }

    /// Sets what signs from now on, and which keys there are elsewhere. A key that is here is not absent.
    pub fn settle(&self, signing: ServerKeyId, form: TokenForm, absent: impl IntoIterator<Item = Absent>) {
        let old = self.0.load_full();
        let place = old.keys.iter().position(|key| key.id == signing).unwrap_or(old.signing);
        let is_absent = |absent: &Absent| old.keys.iter().all(|key| key.id != absent.id);
        let absent: Vec<_> = absent.into_iter().filter(is_absent).collect();
        if place != old.signing || form != old.form || absent != old.absent {
            self.0.store(Arc::new(Ring { keys: old.keys.clone(), signing: place, form, absent }));
        }
    }

    /// Sets only which keys there are elsewhere.
    pub fn learn(&self, absent: impl IntoIterator<Item = Absent>) {
        let (signing, form) = {
            let ring = self.0.load();
            (ring.keys[ring.signing].id, ring.form)
        };
        self.settle(signing, form, absent);
    }

    /// Encrypts with XChaCha20-Poly1305: `key id(8) | nonce(24) | ciphertext and tag`. `purpose` and `owner`
    /// are authenticated, so a value that was sealed for one row cannot be moved to another.
    pub fn seal(&self, purpose: Purpose<'_>, owner: &[u8], plain: &[u8], entropy: &Entropy) -> Vec<u8> {
        let key = self.signing();
        let nonce: [u8; 24] = entropy.bytes();
        let sealed = cipher(&key, purpose)
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: owner })
            .expect("sealing a few bytes in memory has no way to fail");
        [&key.id.to_be_bytes()[..], &nonce, &sealed].concat()
    }

    /// Opens a value from [`Keyring::seal`]. `None` if it was changed or moved, or its key is unknown.
    pub fn open(&self, purpose: Purpose<'_>, owner: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (id, rest) = sealed.split_first_chunk::<8>()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<24>()?;
        let key = self.by_id(i64::from_be_bytes(*id))?;
        cipher(&key, purpose)
            .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: owner })
            .ok()
            .map(Zeroizing::new)
    }

    /// Whether the current key made this seal. If so, it needs none of the older keys.
    pub fn is_fresh(&self, sealed: &[u8]) -> bool {
        sealer(sealed) == Some(self.signing().id)
    }
}

/// The key that made a seal.
pub fn sealer(sealed: &[u8]) -> Option<ServerKeyId> {
    sealed.first_chunk().map(|id| i64::from_be_bytes(*id))
}

/// A key's id as text: 16 hexadecimal digits.
pub fn name_of(id: ServerKeyId) -> String {
    format!("{id:016x}")
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.load().keys.len())
    }
}

/// What a sealed value is for. Each purpose has its own derived key.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    WebhookSecret,
    /// Includes the caller's `Idempotency-Key`, which is not stored. So the database and the server key are
    /// not enough to open the answer.
    IdempotentAnswer(&'a [u8]),
    Cursor,
    TotpSecret,
    SignInChoice,
    KeptForm,
    AuditAnchor,
    AuditHead,
}

fn cipher(key: &ServerKey, purpose: Purpose<'_>) -> XChaCha20Poly1305 {
    let (salt, info): (&[u8], &[u8]) = match purpose {
        Purpose::WebhookSecret => (SEAL, b"webhook secret"),
        Purpose::IdempotentAnswer(callers) => (callers, b"idempotent answer"),
        Purpose::Cursor => (SEAL, b"cursor"),
        Purpose::TotpSecret => (SEAL, b"totp secret"),
        Purpose::SignInChoice => (SEAL, b"sign-in choice"),
        Purpose::KeptForm => (SEAL, b"kept form"),
        Purpose::AuditAnchor => (SEAL, b"audit anchor"),
        Purpose::AuditHead => (SEAL, b"audit head"),
    };
    XChaCha20Poly1305::new(&(*key.derive(salt, info)).into())
}

const SEAL: &[u8] = b"tollgate seal";
