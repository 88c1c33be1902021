//! What follows a swap: idle connections close, instances are probed, names are looked up, the revision is announced.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::drains::Drains;
use crate::admin::RegistryTimings;
use crate::catalog::{Applied, Live, Took};
use crate::prober::Prober;
use crate::proxy::Proxy;

pub struct AfterSwap {
    pub live: Arc<Live>,
    pub proxy: Proxy,
    pub prober: Prober,
    pub drains: Arc<Mutex<Drains>>,
    pub timings: Arc<RegistryTimings>,
    pub names: watch::Sender<BTreeSet<Arc<str>>>,
    pub in_force: watch::Sender<InForce>,
}

/// What the rest of the process wants to hear of the snapshot in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InForce {
    pub revision: u64,
    /// The registry and each source have said what they hold.
    pub registry_known: bool,
}

impl AfterSwap {
    /// `took` is the time from reading the first event to the swap.
    pub fn tell(&self, applied: Applied, took: Took) {
        self.timings.propagation.record(took.since_first);
        self.timings.apply.record(took.apply);
        self.proxy.evict(&applied.retired);
        self.prober.changed(&applied.services);
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.live.load();
        drains.follow(&snapshot, &applied);
        drop(drains);
        if let Some(names) = applied.names {
            self.names.send_replace(names);
        }
        let now = InForce { revision: applied.revision, registry_known: snapshot.registry_known };
        self.in_force.send_if_modified(|last| std::mem::replace(last, now) != now);
    }
}
