//! What follows a swap: idle connections close, names are looked up, the revision is announced.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::drains::Drains;
use crate::admin::RegistryTimings;
use crate::catalog::{Applied, Live, Took};
use crate::proxy::Proxy;

pub struct AfterSwap {
    pub live: Arc<Live>,
    pub proxy: Proxy,
    pub drains: Arc<Mutex<Drains>>,
    pub timings: Arc<RegistryTimings>,
    pub names: watch::Sender<BTreeSet<Arc<str>>>,
    /// The revision in force.
    pub revision: watch::Sender<u64>,
}

impl AfterSwap {
    /// `took` is the time from reading the first event to the swap.
    pub fn tell(&self, applied: Applied, took: Took) {
        self.timings.propagation.record(took.since_first);
        self.timings.apply.record(took.apply);
        self.proxy.evict(&applied.retired);
        if let Some(names) = applied.names {
            self.names.send_replace(names);
        }
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        drains.follow(&self.live.load(), &applied.services);
        drop(drains);
        self.revision.send_if_modified(|revision| std::mem::replace(revision, applied.revision) != applied.revision);
    }
}
