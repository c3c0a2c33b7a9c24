//! Random bytes: from the operating system, or from a seed in tests that must be repeatable.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};

use super::cell::CellId;

/// The source of every secret and id.
#[derive(Clone, Debug, Default)]
pub enum Entropy {
    /// The operating system's CSPRNG. For secrets we ask it each time, so this process holds no state of a
    /// generator from which they could be computed.
    #[default]
    System,
    Seeded(Arc<Mutex<StdRng>>),
    /// Ids and keys made from this source show the cell.
    OfCell(CellId, Arc<Entropy>),
}

impl Entropy {
    /// A repeatable source, for tests only: anyone who knows the seed can compute every secret.
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// The same source, for what a cell makes.
    pub fn of_cell(self, cell: CellId) -> Self {
        Self::OfCell(cell, Arc::new(self))
    }

    pub(super) const fn cell(&self) -> Option<CellId> {
        match self {
            Self::OfCell(cell, _) => Some(*cell),
            Self::System | Self::Seeded(_) => None,
        }
    }

    /// What a secret of a cell begins with: the cell's digits. Empty without cells.
    pub(super) fn cell_digits(&self) -> String {
        self.cell().map(|cell| cell.to_string()).unwrap_or_default()
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match self {
            Self::OfCell(_, source) => return source.bytes(),
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

    /// Random bytes for ids, which must be unique but are not secret. The thread's own generator makes them
    /// without a system call, because every call of the API has an id.
    pub fn id_bytes<const N: usize>(&self) -> [u8; N] {
        match self {
            Self::OfCell(_, source) => source.id_bytes(),
            Self::System => rand::random(),
            Self::Seeded(_) => self.bytes(),
        }
    }
}
