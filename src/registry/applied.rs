//! What a list or a watch response came to: the event for the catalog, and what an operator should know.

use std::collections::BTreeSet;

use tracing::{info, warn};

use super::departures::{Doubt, LeaseId};
use super::record::Rejected;
use super::reflector::Bytes;
use crate::model::{Change, Departure, Event, Origin};

#[derive(Debug, Default)]
pub struct Applied {
    /// The last revision that said anything about a declared record; a list's own revision.
    pub revision: Option<u64>,
    pub changes: Vec<Change>,
    /// Departures that are deletions unless a lease has ended.
    pub doubts: Vec<Doubt>,
    pub n_puts: u64,
    pub n_deletes: u64,
    pub rejected: Vec<Rejected>,
    /// Keys (with the prefix) that were rejected and are not any more.
    pub cleared: Vec<String>,
    pub warnings: Vec<Warning>,
    /// What the registry's identity became.
    pub meta: Option<Bytes>,
}

/// Something odd about a record that is used all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub key: String,
    pub revision: u64,
    pub message: String,
}

impl Applied {
    /// `None` when nothing was said about any declared record. An event without changes is worth sending too:
    /// somebody may wait for its revision.
    pub fn take_event(&mut self, origin: Origin) -> Option<Event> {
        let revision = self.revision?;
        Some(Event { origin, revision, changes: std::mem::take(&mut self.changes) })
    }

    pub fn leases_in_doubt(&self) -> BTreeSet<LeaseId> {
        self.doubts.iter().map(|doubt| doubt.lease).collect()
    }

    /// Whose lease is not among those that live went with it.
    pub fn settle_doubts(&mut self, living: &BTreeSet<LeaseId>) {
        for doubt in self.doubts.drain(..).filter(|doubt| !living.contains(&doubt.lease)) {
            if let Some(Change::InstanceGone { departure, .. }) = self.changes.get_mut(doubt.change) {
                *departure = Departure::Expired;
            }
        }
    }

    /// Each odd record once per revision, because it is read once per revision; the rest of a flood is only counted.
    pub fn log(&self) {
        for rejected in self.rejected.iter().take(LOGGED_MAX) {
            warn!(key = rejected.key, revision = rejected.revision, "Record rejected: {rejected}");
        }
        for Warning { key, revision, message } in self.warnings.iter().take(LOGGED_MAX) {
            warn!(key, revision, "Record is odd: {message}");
        }
        let n_unsaid = self.rejected.len().saturating_sub(LOGGED_MAX) + self.warnings.len().saturating_sub(LOGGED_MAX);
        if n_unsaid > 0 {
            warn!(n_unsaid, "More records are rejected or odd");
        }
        for key in self.cleared.iter().take(LOGGED_MAX) {
            info!(key, "Record no longer rejected");
        }
    }

    pub(super) fn reached(&mut self, revision: u64) {
        self.revision = self.revision.max(Some(revision));
    }
}

/// Of each sort, in one event.
const LOGGED_MAX: usize = 20;
