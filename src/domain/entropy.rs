//! Randomness: the operating system's generator, or a seeded one for tests that must repeat.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};

/// The source of every secret and id.
#[derive(Clone, Debug, Default)]
pub enum Entropy {
    /// The operating system's CSPRNG, asked directly: no state in this process to leak or to fork.
    #[default]
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Entropy {
    /// A repeatable source. Never for production: whoever knows the seed knows every secret.
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match self {
            // A server that cannot draw randomness must not issue anything; there is no way on.
            Self::System => SysRng
                .try_fill_bytes(&mut bytes)
                .expect("the operating system has randomness once it has booted"),
            Self::Seeded(rng) => {
                rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
            }
        }
        bytes
    }
}
