//! Random bytes: from the operating system, or from a seed in tests that must be repeatable.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};

/// The source of every secret and id.
#[derive(Clone, Debug, Default)]
pub enum Entropy {
    /// The operating system's CSPRNG. We ask it each time, so this process holds no generator state that
    /// could leak.
    #[default]
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Entropy {
    /// A repeatable source, for tests only: anyone who knows the seed can compute every secret.
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match self {
            // Panics, because a server without random bytes must not issue anything.
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
