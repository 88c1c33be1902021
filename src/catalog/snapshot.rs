//! All that a request is decided by, at one revision.

use std::sync::Arc;

use super::Acme;
use crate::model::{ServiceName, ShardMap};
use crate::pool::Service;
use crate::routing::RouteTable;
use crate::seal::Seal;
use crate::tls::Certificates;

/// Immutable and complete.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The revision of our own prefix in the registry; 0 before the first list.
    pub revision: u64,
    /// The registry and all of its sources have been heard of, from themselves or from the copies on disk: what is missing
    /// here does not exist.
    pub registry_known: bool,
    /// Counts the snapshots of this process.
    pub sequence: u64,
    /// What sessions are sealed with: the secret that was configured, or the registry's epoch. `None` before that is known.
    pub seal: Option<Arc<Seal>>,
    pub routes: Arc<RouteTable>,
    pub certificates: Arc<Certificates>,
    pub acme: Arc<Acme>,
    pub services: ShardMap<ServiceName, Arc<Service>>,
}

impl Snapshot {
    pub(super) fn succeed(previous: &Self, revision: u64) -> Self {
        Self { revision, sequence: previous.sequence + 1, ..previous.clone() }
    }
}
