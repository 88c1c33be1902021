//! Every key with its versions since the last compaction, and the log of what changed at each revision.
//!
//! Invariants:
//! - each revision above `first_logged` has exactly one entry in the log, so a revision is an index;
//! - versions of a key are in order; all but the newest are superseded by one still in the log,
//!   which is why dropping a log entry finds every version that must go with it;
//! - `revision` only grows, and a change is visible either whole or not at all: writers go through [`Change`],
//!   which cannot fail half way.
//!
//! It has no clock, no lease logic and no disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::fault::Fault;
use super::kv::{KeyRange, Kv};
use super::ops::{Range, RangeAnswer};

pub struct Keyspace {
    keys: BTreeMap<Bytes, Vec<Arc<Kv>>>,
    /// What happened at `first_logged`, `first_logged + 1`, … `revision`.
    log: VecDeque<Box<[Arc<Kv>]>>,
    revision: i64,
    /// Reads below it are refused.
    compacted: i64,
    /// The first revision a watch may start from. Above `compacted` after a restart: the state at
    /// that revision was kept, how it came to be was not.
    watchable: i64,
    /// What log and keys cost together, see [`Kv::cost`].
    bytes: usize,
    limits: Limits,
}

/// When history is let go by itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Revisions kept behind the newest.
    pub revisions: usize,
    /// History and live keys together; beyond it history goes first, then puts are refused.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A reflector that lists 100,000 keys in pages at one revision needs a few seconds of history; 50,000
        // revisions are that at any rate one machine reaches. A gibibyte of small keys is more than a million.
        Self { revisions: 50_000, bytes: 1 << 30 }
    }
}

impl Keyspace {
    /// A registry nobody has written to starts at revision 1, as etcd does.
    pub fn new(limits: Limits) -> Self {
        Self { keys: BTreeMap::new(), log: VecDeque::new(), revision: 1, compacted: -1, watchable: -1, bytes: 0, limits }
    }

    /// The state another process left behind at `revision`; everything before it counts as compacted.
    pub fn restore(kvs: Vec<Kv>, revision: i64, limits: Limits) -> Self {
        let mut keyspace = Self { revision, compacted: revision, watchable: revision + 1, ..Self::new(limits) };
        for kv in kvs {
            keyspace.bytes += kv.cost();
            keyspace.keys.insert(kv.key.clone(), vec![Arc::new(kv)]);
        }
        keyspace
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub fn watchable(&self) -> i64 {
        self.watchable
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_full(&self) -> bool {
        self.bytes > self.limits.bytes
    }

    /// The newest version of a key that is there.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Kv>> {
        self.keys.get(key)?.last().filter(|kv| !kv.is_tombstone())
    }

    /// The version of a key that was there at `revision`, if that is still known.
    pub fn get_at(&self, key: &[u8], revision: i64) -> Option<&Arc<Kv>> {
        if revision < self.compacted {
            return None;
        }
        version_at(self.keys.get(key)?, revision)
    }

    /// The newest versions of all keys in a range, in key order.
    pub fn live<'a>(&'a self, keys: &'a KeyRange) -> impl Iterator<Item = &'a Arc<Kv>> {
        self.in_range(keys).filter_map(|(_, versions)| versions.last().filter(|kv| !kv.is_tombstone()))
    }

    /// Whether a read at `revision` can be answered now.
    pub fn check_readable(&self, revision: i64) -> Result<(), Fault> {
        if revision > self.revision {
            Err(Fault::FutureRevision)
        } else if revision < self.compacted {
            Err(Fault::Compacted)
        } else {
            Ok(())
        }
    }

    pub fn range(&self, range: &Range) -> Result<RangeAnswer, Fault> {
        self.range_as_of(range, self.revision)
    }

    /// `now` is the revision the answer states: one more than ours within a [`Change`] that changed something.
    fn range_as_of(&self, range: &Range, now: i64) -> Result<RangeAnswer, Fault> {
        let at = if range.revision > 0 {
            self.check_readable(range.revision)?;
            range.revision
        } else {
            now
        };
        let found = self.in_range(&range.keys).filter_map(|(_, versions)| version_at(versions, at));
        let mut answer = RangeAnswer { revision: now, kvs: Vec::new(), count: 0, more: false, keys_only: range.keys_only };
        if range.count_only {
            answer.count = found.count();
            return Ok(answer);
        }
        // One more than asked for shows that there is more; the count is of the whole range, so the walk goes on.
        let kept_max = if range.limit > 0 && !range.sorts_before_limit() { range.limit + 1 } else { usize::MAX };
        for kv in found {
            answer.count += 1;
            let wanted = range.mod_revision.contains(kv.mod_revision) && range.create_revision.contains(kv.create_revision);
            if wanted && answer.kvs.len() < kept_max {
                answer.kvs.push(kv.clone());
            }
        }
        if let Some(sort) = range.sort {
            answer.kvs.sort_by(|a, b| sort.order(a, b));
        }
        if range.limit > 0 && answer.kvs.len() > range.limit {
            answer.kvs.truncate(range.limit);
            answer.more = true;
        }
        Ok(answer)
    }

    /// The oldest revision the log still has; one above `revision` when the log is empty.
    pub fn first_logged(&self) -> i64 {
        self.revision + 1 - self.log.len() as i64
    }

    /// What changed at each revision from `from` on (or from where the log begins), oldest first.
    pub fn changes_from(&self, from: i64) -> impl Iterator<Item = (i64, &[Arc<Kv>])> {
        let first = self.first_logged();
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(0);
        let revisions = first + skip as i64..;
        revisions.zip(self.log.iter().skip(skip).map(|events| &**events))
    }

    /// Forgets what is only needed to read below `revision`.
    pub fn compact(&mut self, revision: i64) -> Result<(), Fault> {
        if revision <= self.compacted {
            return Err(Fault::Compacted);
        }
        if revision > self.revision {
            return Err(Fault::FutureRevision);
        }
        self.forget_below(revision);
        Ok(())
    }

    /// Begins a change; nothing is visible to readers of this keyspace until `Change::finish`, as the change borrows it.
    pub fn change(&mut self) -> Change<'_> {
        Change { keyspace: self, events: Vec::new(), lease_moves: Vec::new() }
    }

    fn in_range<'a>(&'a self, keys: &'a KeyRange) -> impl Iterator<Item = (&'a Bytes, &'a Vec<Arc<Kv>>)> {
        let bounds = (!keys.is_empty()).then(|| keys.bounds());
        bounds.into_iter().flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
    }

    fn forget_below(&mut self, revision: i64) {
        self.compacted = revision;
        self.watchable = self.watchable.max(revision);
        while self.first_logged() < revision {
            let Some(events) = self.log.pop_front() else { break };
            for event in &events {
                self.bytes -= LOG_ENTRY_COST;
                self.forget_versions(&event.key, revision);
            }
        }
        // The entry of the revision itself stays, for a watch that starts there; what it superseded goes.
        let superseding: Vec<Bytes> = match self.changes_from(revision).next() {
            Some((at, events)) if at == revision => events.iter().map(|event| event.key.clone()).collect(),
            _ => Vec::new(),
        };
        for key in superseding {
            self.forget_versions(&key, revision);
        }
    }

    fn forget_versions(&mut self, key: &Bytes, revision: i64) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let newer = versions.partition_point(|kv| kv.mod_revision <= revision);
        let Some(newest) = newer.checked_sub(1) else { return };
        let n_forgotten = if versions[newest].is_tombstone() { newer } else { newest };
        self.bytes -= versions.drain(..n_forgotten).map(|kv| kv.cost()).sum::<usize>();
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }

    fn trim_history(&mut self) {
        if self.log.len() > self.limits.revisions + self.limits.revisions / SLACK {
            self.forget_below(self.revision - self.limits.revisions as i64);
        }
        while self.is_full() && self.log.len() > 1 {
            let n_kept = (self.log.len() / 2) as i64;
            self.forget_below(self.revision + 1 - n_kept);
        }
    }
}

/// A change under way: any number of puts and deletes that become one revision together.
pub struct Change<'a> {
    keyspace: &'a mut Keyspace,
    events: Vec<Arc<Kv>>,
    lease_moves: Vec<LeaseMove>,
}

/// What a change did. Empty when it changed nothing, and then the revision stayed.
pub struct Changed {
    /// In the order they happened.
    pub events: Vec<Arc<Kv>>,
    pub lease_moves: Vec<LeaseMove>,
}

/// A key that was under one lease (0: none) and is now under another.
pub struct LeaseMove {
    pub key: Bytes,
    pub before: i64,
    pub now: i64,
}

impl Change<'_> {
    /// The revision this change gets if it changes anything.
    pub fn next_revision(&self) -> i64 {
        self.keyspace.revision + 1
    }

    /// The revision a reader within the change sees: etcd answers with the next one after the first write.
    pub fn revision(&self) -> i64 {
        if self.events.is_empty() { self.keyspace.revision } else { self.next_revision() }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Arc<Kv>> {
        self.keyspace.get(key)
    }

    /// Reads what was there before and what this change wrote so far.
    pub fn range(&self, range: &Range) -> Result<RangeAnswer, Fault> {
        self.keyspace.range_as_of(range, self.revision())
    }

    pub fn put(&mut self, key: Bytes, value: Bytes, lease: i64) {
        let revision = self.next_revision();
        let (create_revision, version, key, lease_before) = match self.keyspace.get(&key) {
            Some(prev) => (prev.create_revision, prev.version + 1, prev.key.clone(), prev.lease),
            None => (revision, 1, key, 0),
        };
        self.push(Kv { key, value, create_revision, mod_revision: revision, version, lease }, lease_before);
    }

    /// Deletes what is there in a range and says what that was.
    pub fn delete(&mut self, keys: &KeyRange) -> Vec<Arc<Kv>> {
        let deleted: Vec<Arc<Kv>> = self.keyspace.live(keys).cloned().collect();
        for kv in &deleted {
            let tombstone = Kv::tombstone(kv.key.clone(), self.next_revision());
            self.push(tombstone, kv.lease);
        }
        deleted
    }

    pub fn finish(self) -> Changed {
        let Self { keyspace, events, lease_moves } = self;
        if !events.is_empty() {
            keyspace.revision += 1;
            keyspace.bytes += events.len() * LOG_ENTRY_COST;
            keyspace.log.push_back(events.clone().into_boxed_slice());
            keyspace.trim_history();
        }
        Changed { events, lease_moves }
    }

    fn push(&mut self, kv: Kv, lease_before: i64) {
        if lease_before != kv.lease {
            self.lease_moves.push(LeaseMove { key: kv.key.clone(), before: lease_before, now: kv.lease });
        }
        self.keyspace.bytes += kv.cost();
        let kv = Arc::new(kv);
        self.keyspace.keys.entry(kv.key.clone()).or_default().push(kv.clone());
        self.events.push(kv);
    }
}

fn version_at(versions: &[Arc<Kv>], revision: i64) -> Option<&Arc<Kv>> {
    // Nearly always the newest is meant.
    versions.iter().rev().find(|kv| kv.mod_revision <= revision).filter(|kv| !kv.is_tombstone())
}

/// Log entries share their key and value with the versions; what is left is a pointer and its box.
const LOG_ENTRY_COST: usize = 32;

/// History is trimmed in steps of a tenth of its length, not one by one at each write.
const SLACK: usize = 10;
