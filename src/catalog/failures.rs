//! Instances in limbo of which somebody found out that they are dead: noted where probes end, taken by the catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::{InstanceId, ServiceName};
use crate::pool::Instance;

#[derive(Debug, Default)]
pub struct Failures {
    noted: Mutex<Noted>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Noted {
    /// The generations in limbo: of nobody else a failed probe is noted, so there are never more than these.
    limbo: BTreeSet<u64>,
    failed: Failed,
}

/// With what the probe said.
pub type Failed = BTreeMap<(ServiceName, InstanceId), String>;

impl Failures {
    /// It has come into limbo, or left it.
    pub fn concern(&self, generation: u64, in_limbo: bool) {
        let limbo = &mut self.lock().limbo;
        if in_limbo {
            limbo.insert(generation);
        } else {
            limbo.remove(&generation);
        }
    }

    /// A probe of it failed. Once is enough.
    pub fn note(&self, instance: &Instance) {
        let mut noted = self.lock();
        if noted.limbo.remove(&instance.state.generation) {
            let said = instance.state.health.probe_said();
            noted.failed.insert((instance.service.clone(), instance.id.clone()), said);
            self.news.notify_one();
        }
    }

    pub fn take(&self) -> Failed {
        std::mem::take(&mut self.lock().failed)
    }

    /// Ready once there is something to take. Safe to drop and ask again.
    pub async fn noted(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
