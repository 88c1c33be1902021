//! What a list or a watch response came to: the event for the catalog, and what an operator should know.

use super::record::Rejected;
use super::reflector::Bytes;
use crate::model::{Change, Event, Origin};

#[derive(Debug, Default)]
pub struct Applied {
    /// The last revision that said anything about a declared record; a list's own revision.
    pub revision: Option<u64>,
    pub changes: Vec<Change>,
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
    pub fn take_event(&mut self) -> Option<Event> {
        let revision = self.revision?;
        Some(Event { origin: Origin::Registry, revision, changes: std::mem::take(&mut self.changes) })
    }

    pub(super) fn reached(&mut self, revision: u64) {
        self.revision = self.revision.max(Some(revision));
    }
}
