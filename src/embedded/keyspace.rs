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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::ops::Within;

    fn put(keyspace: &mut Keyspace, key: &str, value: &str) {
        let mut change = keyspace.change();
        change.put(Bytes::from(key.to_owned()), Bytes::from(value.to_owned()), 0);
        change.finish();
    }

    fn delete(keyspace: &mut Keyspace, key: &str) {
        let mut change = keyspace.change();
        change.delete(&KeyRange::new(key.into(), vec![]));
        change.finish();
    }

    fn all(revision: i64, limit: usize) -> Range {
        Range {
            keys: KeyRange::new(vec![0], vec![0]),
            limit,
            revision,
            sort: None,
            keys_only: false,
            count_only: false,
            mod_revision: Within::default(),
            create_revision: Within::default(),
        }
    }

    /// What is there at a revision, as `key=value` in order.
    fn told(keyspace: &Keyspace, revision: i64) -> Result<String, Fault> {
        let answer = keyspace.range(&all(revision, 0))?;
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let kvs = answer.kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value)));
        Ok(kvs.collect::<Vec<_>>().join(" "))
    }

    /// What `bytes` should say.
    fn counted(keyspace: &Keyspace) -> usize {
        let events = keyspace.log.iter().map(|events| events.len()).sum::<usize>();
        let versions = keyspace.keys.values().flatten().map(|kv| kv.cost()).sum::<usize>();
        versions + events * LOG_ENTRY_COST
    }

    #[test]
    fn every_revision_can_be_read_until_it_is_compacted() {
        let mut keyspace = Keyspace::new(Limits::default());
        put(&mut keyspace, "a", "1"); // 2
        put(&mut keyspace, "b", "1"); // 3
        put(&mut keyspace, "a", "2"); // 4
        delete(&mut keyspace, "b"); // 5
        put(&mut keyspace, "b", "2"); // 6
        let history = ["", "a=1", "a=1 b=1", "a=2 b=1", "a=2", "a=2 b=2"];
        for (revision, expected) in (1..).zip(history) {
            assert_eq!(told(&keyspace, revision).as_deref(), Ok(expected), "at {revision}");
        }
        assert_eq!(told(&keyspace, 7), Err(Fault::FutureRevision));
        keyspace.compact(5).unwrap();
        assert_eq!(told(&keyspace, 4), Err(Fault::Compacted));
        assert_eq!(told(&keyspace, 5).as_deref(), Ok("a=2"));
        assert_eq!(told(&keyspace, 6).as_deref(), Ok("a=2 b=2"));
        assert_eq!(keyspace.compact(5), Err(Fault::Compacted));
        assert_eq!(keyspace.compact(7), Err(Fault::FutureRevision));
        assert_eq!(keyspace.get(b"b").unwrap().version, 1, "a key that was deleted begins anew");
    }

    #[test]
    fn compaction_gives_back_all_that_only_history_held() {
        let mut keyspace = Keyspace::new(Limits::default());
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let key = format!("k{}", rng.u32(0..20));
            if rng.u32(0..4) == 0 {
                delete(&mut keyspace, &key)
            } else {
                put(&mut keyspace, &key, "some value")
            }
            if rng.u32(0..50) == 0 {
                let _ = keyspace.compact(keyspace.revision() - rng.i64(0..40));
                assert_eq!(keyspace.bytes(), counted(&keyspace));
            }
        }
        keyspace.compact(keyspace.revision()).unwrap();
        assert_eq!(keyspace.log.len(), 1);
        assert!(keyspace.keys.values().all(|versions| versions.len() == 1 && !versions[0].is_tombstone()));
        assert_eq!(keyspace.bytes(), counted(&keyspace));
    }

    #[test]
    fn history_is_bounded_in_revisions_and_in_bytes() {
        let mut keyspace = Keyspace::new(Limits { revisions: 100, bytes: 1 << 20 });
        for _ in 0..1000 {
            put(&mut keyspace, "a", "1");
            assert!(keyspace.log.len() <= 110 && keyspace.keys["a".as_bytes()].len() <= 111);
        }
        assert!(told(&keyspace, keyspace.revision() - 100).is_ok());
        let large = "x".repeat(100_000);
        for _ in 0..50 {
            put(&mut keyspace, "a", &large);
            assert!(keyspace.bytes() <= 1 << 20, "history goes before anything is refused");
        }
        for n in 0..12 {
            put(&mut keyspace, &format!("k{n}"), &large);
        }
        assert!(keyspace.is_full(), "live keys do not go by themselves");
    }

    #[test]
    fn a_restored_keyspace_can_be_read_now_and_watched_from_now_on() {
        let mut first = Keyspace::new(Limits::default());
        put(&mut first, "a", "1");
        put(&mut first, "a", "2");
        let kv = first.get(b"a").unwrap();
        let kv = Kv { key: kv.key.clone(), value: kv.value.clone(), ..*kv.as_ref() };
        let mut second = Keyspace::restore(vec![kv], 500, Limits::default());
        assert_eq!(told(&second, 499), Err(Fault::Compacted));
        assert_eq!(told(&second, 500).as_deref(), Ok("a=2"));
        assert_eq!((second.watchable(), second.first_logged()), (501, 501));
        put(&mut second, "a", "3");
        let kv = second.get(b"a").unwrap();
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 501, 3));
        assert_eq!(second.changes_from(501).count(), 1);
    }

    #[test]
    fn a_page_says_that_there_is_more_and_how_much_there_is() {
        let mut keyspace = Keyspace::new(Limits::default());
        for key in ["a", "b", "c", "d"] {
            put(&mut keyspace, key, key);
        }
        let page = |limit| keyspace.range(&all(0, limit)).map(|page| (page.kvs.len(), page.more, page.count));
        assert_eq!(page(3), Ok((3, true, 4)));
        assert_eq!(page(4), Ok((4, false, 4)));
        assert_eq!(page(0), Ok((4, false, 4)));
    }
}
