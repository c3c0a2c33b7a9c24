//! The server's token keys, and what they seal besides tokens: secrets that must be readable again.
//!
//! Newest first. The newest seals; every one of them opens, so a key is retired by waiting until no
//! session names it. A key's id is derived from the key, so that replicas agree whatever the order.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::entropy::Entropy;

/// Names the server key that sealed something.
pub type ServerKeyId = i64;

pub struct ServerKey {
    id: ServerKeyId,
    bytes: Zeroizing<[u8; 32]>,
}

impl ServerKey {
    fn new(bytes: [u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(b"tollgate server key id").chain_update(bytes).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self { id: i64::from_be_bytes(id), bytes: Zeroizing::new(bytes) }
    }

    #[must_use]
    pub const fn id(&self) -> ServerKeyId {
        self.id
    }

    /// HKDF-SHA256 (RFC 5869) of this key: `salt` binds the result to one row, `info` to one use.
    #[must_use]
    pub fn derive(&self, salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(salt), &*self.bytes)
            .expand(info, &mut *derived)
            .expect("32 bytes are within what HKDF-SHA256 can expand to");
        derived
    }
}

/// At least one server key, newest first.
pub struct Keyring(Vec<ServerKey>);

impl Keyring {
    /// `None` when there is no key at all.
    #[must_use]
    pub fn new(keys: &[[u8; 32]]) -> Option<Self> {
        (!keys.is_empty()).then(|| Self(keys.iter().copied().map(ServerKey::new).collect()))
    }

    #[must_use]
    pub fn newest(&self) -> &ServerKey {
        self.0.first().expect("a keyring is made with at least one key")
    }

    #[must_use]
    pub fn by_id(&self, id: ServerKeyId) -> Option<&ServerKey> {
        self.0.iter().find(|key| key.id == id)
    }

    /// Encrypts with XChaCha20-Poly1305: `key id(8) | nonce(24) | ciphertext and tag`. `purpose` and
    /// `owner` are authenticated: what was sealed for one row cannot be moved to another.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, owner: &[u8], plain: &[u8], entropy: &Entropy) -> Vec<u8> {
        let key = self.newest();
        let nonce: [u8; 24] = entropy.bytes();
        let sealed = cipher(key, purpose)
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: owner })
            .expect("sealing a few bytes in memory has no way to fail");
        [&key.id.to_be_bytes()[..], &nonce, &sealed].concat()
    }

    /// Opens what [`Keyring::seal`] made; `None` when it was altered, moved or sealed by an unknown key.
    #[must_use]
    pub fn open(&self, purpose: Purpose, owner: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (id, rest) = sealed.split_first_chunk::<8>()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<24>()?;
        let key = self.by_id(i64::from_be_bytes(*id))?;
        cipher(key, purpose)
            .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: owner })
            .ok()
            .map(Zeroizing::new)
    }

    /// Whether the newest key made this seal, so that the older ones can go without it.
    #[must_use]
    pub fn is_fresh(&self, sealed: &[u8]) -> bool {
        sealed.starts_with(&self.newest().id.to_be_bytes())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

/// What a sealed value is for; each has a key of its own.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    WebhookSecret,
    IdempotentAnswer,
    Cursor,
    TotpSecret,
    AuditAnchor,
}

fn cipher(key: &ServerKey, purpose: Purpose) -> XChaCha20Poly1305 {
    let info: &[u8] = match purpose {
        Purpose::WebhookSecret => b"webhook secret",
        Purpose::IdempotentAnswer => b"idempotent answer",
        Purpose::Cursor => b"cursor",
        Purpose::TotpSecret => b"totp secret",
        Purpose::AuditAnchor => b"audit anchor",
    };
    XChaCha20Poly1305::new(&(*key.derive(b"tollgate seal", info)).into())
}
