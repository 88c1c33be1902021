//! A service at one snapshot.

use std::sync::Arc;

use super::{InFlight, PickError, Pool, ServiceStats};
use crate::model::{ServiceName, ServicePolicy};

/// Immutable; untouched by a change elsewhere, which the pointer shows.
#[derive(Debug)]
pub struct Service {
    pub name: ServiceName,
    pub policy: Arc<ServicePolicy>,
    pub pool: Pool,
    pub stats: Arc<ServiceStats>,
}

impl Service {
    /// Chooses an instance for one attempt. `tried` holds the generations of those this request has been at.
    pub fn pick(&self, tried: &[u64], rng: &mut fastrand::Rng) -> Result<InFlight, PickError> {
        self.pool.pick(self.policy.balance, tried, &self.stats.turn, rng).map(|instance| InFlight::begin(instance.clone()))
    }
}
