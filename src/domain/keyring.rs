//! The server's token keys, and what they seal besides tokens: secrets that must be readable again.
//!
//! Newest first. One of them signs, and every one of them opens. Which one signs is agreed upon with the
//! other replicas ([`crate::flows::token_keys`]): none signs with a key that another could not verify. A
//! key's id is derived from the key, so that replicas agree whatever the order.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use strum::{EnumString, IntoStaticStr};
use zeroize::Zeroizing;

use super::entropy::Entropy;

/// Names the server key that sealed something.
pub type ServerKeyId = i64;

/// What an operator lets a key do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum KeyState {
    /// Sign, once every replica has the key; and verify.
    Sign,
    /// Verify what it signed before, and nothing more.
    Verify,
}

pub struct ServerKey {
    id: ServerKeyId,
    state: KeyState,
    bytes: Zeroizing<[u8; 32]>,
}

impl ServerKey {
    pub fn new(bytes: [u8; 32], state: KeyState) -> Self {
        let digest = Sha256::new().chain_update(b"tollgate server key id").chain_update(bytes).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self { id: i64::from_be_bytes(id), state, bytes: Zeroizing::new(bytes) }
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

    /// HKDF-SHA256 (RFC 5869) of this key: `salt` binds the result to one row, `info` to one use.
    pub fn derive(&self, salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(salt), &*self.bytes)
            .expand(info, &mut *derived)
            .expect("32 bytes are within what HKDF-SHA256 can expand to");
        derived
    }
}

/// At least one server key, newest first.
struct Ring {
    keys: Vec<Arc<ServerKey>>,
    /// The place of the key that signs.
    signing: usize,
    /// Keys that are gone for good, as an operator said: what they signed counts as never issued.
    lost: Vec<ServerKeyId>,
}

/// The ring in use. It is replaced as a whole when an operator adds a key or another one is to sign, and
/// reading it takes no lock.
pub struct Keyring(ArcSwap<Ring>);

impl Keyring {
    /// All keys may sign. `None` when there is no key at all.
    pub fn new(keys: &[[u8; 32]]) -> Option<Self> {
        Self::of(keys.iter().map(|key| ServerKey::new(*key, KeyState::Sign)))
    }

    /// `None` when there is no key at all. The newest that may sign signs until told otherwise.
    pub fn of(keys: impl IntoIterator<Item = ServerKey>) -> Option<Self> {
        let keys: Vec<_> = keys.into_iter().map(Arc::new).collect();
        let signing = keys.iter().position(|key| key.state == KeyState::Sign).unwrap_or(0);
        (!keys.is_empty()).then(|| Self(ArcSwap::from_pointee(Ring { keys, signing, lost: Vec::new() })))
    }

    /// Every key, newest first.
    pub fn keys(&self) -> Vec<Arc<ServerKey>> {
        self.0.load().keys.clone()
    }

    /// The key that signs and seals.
    pub fn signing(&self) -> Arc<ServerKey> {
        let ring = self.0.load();
        Arc::clone(&ring.keys[ring.signing])
    }

    pub fn by_id(&self, id: ServerKeyId) -> Option<Arc<ServerKey>> {
        self.0.load().keys.iter().find(|key| key.id == id).cloned()
    }

    /// Whether something that names this key must be taken for bad. `false` for a key that is only not
    /// here yet: nobody may say anything about what that one signed.
    pub fn is_lost(&self, id: ServerKeyId) -> bool {
        self.0.load().lost.contains(&id)
    }

    /// The key that must be here before anything can be said of this seal; `None` when it is, or is lost.
    pub fn missing_for(&self, sealed: &[u8]) -> Option<ServerKeyId> {
        let id = sealer(sealed)?;
        (self.by_id(id).is_none() && !self.is_lost(id)).then_some(id)
    }

    /// Takes over what operators say now. A key that is no longer among `keys` stays, for verifying, until
    /// the next start, which looks at what it still holds. `true` when something changed.
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
        self.0.store(Arc::new(Ring { keys, signing, lost: old.lost.clone() }));
        true
    }

    /// Which key signs from now on, and which ones are lost. A key that is here is not.
    pub fn settle(&self, signing: ServerKeyId, lost: &[ServerKeyId]) {
        let old = self.0.load_full();
        let place = old.keys.iter().position(|key| key.id == signing).unwrap_or(old.signing);
        let lost: Vec<_> =
            lost.iter().copied().filter(|id| old.keys.iter().all(|key| key.id != *id)).collect();
        if place != old.signing || lost != old.lost {
            self.0.store(Arc::new(Ring { keys: old.keys.clone(), signing: place, lost }));
        }
    }

    /// Encrypts with XChaCha20-Poly1305: `key id(8) | nonce(24) | ciphertext and tag`. `purpose` and
    /// `owner` are authenticated: what was sealed for one row cannot be moved to another.
    pub fn seal(&self, purpose: Purpose<'_>, owner: &[u8], plain: &[u8], entropy: &Entropy) -> Vec<u8> {
        let key = self.signing();
        let nonce: [u8; 24] = entropy.bytes();
        let sealed = cipher(&key, purpose)
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: owner })
            .expect("sealing a few bytes in memory has no way to fail");
        [&key.id.to_be_bytes()[..], &nonce, &sealed].concat()
    }

    /// Opens what [`Keyring::seal`] made; `None` when it was altered, moved or sealed by an unknown key.
    pub fn open(&self, purpose: Purpose<'_>, owner: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (id, rest) = sealed.split_first_chunk::<8>()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<24>()?;
        let key = self.by_id(i64::from_be_bytes(*id))?;
        cipher(&key, purpose)
            .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: owner })
            .ok()
            .map(Zeroizing::new)
    }

    /// Whether the key that signs made this seal, so that the others can go without it.
    pub fn is_fresh(&self, sealed: &[u8]) -> bool {
        sealer(sealed) == Some(self.signing().id)
    }
}

/// The key that a seal names.
pub fn sealer(sealed: &[u8]) -> Option<ServerKeyId> {
    sealed.first_chunk().map(|id| i64::from_be_bytes(*id))
}

/// A key's id as people see it: 16 hexadecimal digits.
pub fn name_of(id: ServerKeyId) -> String {
    format!("{id:016x}")
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.load().keys.len())
    }
}

/// What a sealed value is for; each has a key of its own.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    WebhookSecret,
    /// With what only the caller has: the `Idempotency-Key`. Whoever has the database and the server key
    /// cannot open it.
    IdempotentAnswer(&'a [u8]),
    Cursor,
    TotpSecret,
    AuditAnchor,
    AuditHead,
}

fn cipher(key: &ServerKey, purpose: Purpose<'_>) -> XChaCha20Poly1305 {
    let (salt, info): (&[u8], &[u8]) = match purpose {
        Purpose::WebhookSecret => (SEAL, b"webhook secret"),
        Purpose::IdempotentAnswer(callers) => (callers, b"idempotent answer"),
        Purpose::Cursor => (SEAL, b"cursor"),
        Purpose::TotpSecret => (SEAL, b"totp secret"),
        Purpose::AuditAnchor => (SEAL, b"audit anchor"),
        Purpose::AuditHead => (SEAL, b"audit head"),
    };
    XChaCha20Poly1305::new(&(*key.derive(salt, info)).into())
}

const SEAL: &[u8] = b"tollgate seal";
