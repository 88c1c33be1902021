//! The one cell that requests read.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Snapshot;

/// A request loads once and keeps the `Arc<Service>` it found: retries see the same pool, and a connection that is
/// open for hours pins one pool, not the world.
#[derive(Debug, Default)]
pub struct Live {
    cell: ArcSwap<Snapshot>,
}

impl Live {
    /// Never waits, never allocates.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.cell.load()
    }

    /// For whoever keeps it longer than a few statements.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.cell.load_full()
    }

    pub(super) fn store(&self, next: Snapshot) {
        self.cell.store(Arc::new(next));
    }
}
