//! The whole registry as one value: keyspace, leases, watchers, and what the disk has not been told yet.
//!
//! Everything here is synchronous and takes the time as an argument; callers hold one lock for one call.
//! Invariant: the keys of a lease are exactly the live keys whose newest version names it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fault::Fault;
use super::keyspace::{Change, Keyspace, Limits};
use super::kv::{KeyRange, Kv};
use super::lease::Leases;
use super::ops::{Delete, DeleteAnswer, Put, PutAnswer, Range, RangeAnswer, Txn, TxnAnswer};
use super::txn::{self, Plan};
use super::watchers::{Pulled, StreamId, WatchFault, Watchers, Watching};

pub struct State {
    keyspace: Keyspace,
    leases: Leases,
    pub watchers: Watchers,
    unsaved: Unsaved,
    /// No revision beyond this may be handed out: a restart begins above it.
    reserved: i64,
}

/// What changed since the disk last took it. A key that changed twice is here once, so this never outgrows the keyspace.
#[derive(Debug, Default)]
pub struct Unsaved {
    /// Counts changes; what is saved up to a tick survives.
    pub tick: u64,
    pub revision: i64,
    pub kvs: BTreeMap<Bytes, Arc<Kv>>,
    /// Granted with this time to live, or ended.
    pub leases: HashMap<i64, Option<Duration>>,
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub struct Saved {
    pub kvs: Vec<Kv>,
    pub leases: Vec<(i64, Duration)>,
    pub revision: i64,
}

impl State {
    pub fn new(saved: Option<Saved>, limits: Limits, now: Instant) -> Self {
        let mut leases = Leases::default();
        let keyspace = match saved {
            None => Keyspace::new(limits),
            Some(saved) => {
                for (id, ttl) in saved.leases {
                    leases.restore(now, id, ttl);
                }
                for kv in &saved.kvs {
                    leases.attach(&kv.key, 0, kv.lease);
                }
                Keyspace::restore(saved.kvs, saved.revision, limits)
            }
        };
        let unsaved = Unsaved { revision: keyspace.revision(), ..Unsaved::default() };
        Self { keyspace, leases, watchers: Watchers::default(), unsaved, reserved: i64::MAX }
    }

    pub fn revision(&self) -> i64 {
        self.keyspace.revision()
    }

    /// Bytes held by live keys and history.
    pub fn bytes(&self) -> usize {
        self.keyspace.bytes()
    }

    pub fn range(&self, range: &Range) -> Result<RangeAnswer, Fault> {
        self.keyspace.range(range)
    }

    pub fn put(&mut self, put: &Put) -> Result<PutAnswer, Fault> {
        // Alone, etcd looks at the lease first; in a transaction at the key.
        self.leases.check(put.lease.unwrap_or(0))?;
        txn::check_put(put, &self.keyspace, &self.leases)?;
        self.check_space()?;
        Ok(self.change(|change| txn::run_put(put, change)))
    }

    pub fn delete(&mut self, delete: &Delete) -> DeleteAnswer {
        self.change(|change| txn::run_delete(delete, change))
    }

    pub fn txn(&mut self, txn: &Txn) -> Result<TxnAnswer, Fault> {
        let plan = Plan::of(txn, &self.keyspace);
        plan.check(&self.keyspace, &self.leases)?;
        if plan.puts() {
            self.check_space()?;
        }
        self.change(|change| plan.run(change))
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Fault> {
        self.keyspace.compact(revision)
    }

    pub fn grant(&mut self, now: Instant, id: i64, ttl_s: i64) -> Result<(i64, Duration), Fault> {
        let (id, ttl) = self.leases.grant(now, id, ttl_s)?;
        self.unsaved.tick += 1;
        self.unsaved.leases.insert(id, Some(ttl));
        Ok((id, ttl))
    }

    /// Ends a lease and deletes its keys, all at one revision.
    pub fn revoke(&mut self, id: i64) -> Result<(), Fault> {
        let keys = self.leases.remove(id)?;
        self.unsaved.tick += 1;
        self.unsaved.leases.insert(id, None);
        self.change(|change| {
            for key in keys {
                change.delete(&KeyRange::One(key));
            }
        });
        Ok(())
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub fn renew(&mut self, now: Instant, id: i64) -> Result<Duration, Fault> {
        self.leases.renew(now, id)
    }

    /// Revokes what nobody renewed, a bounded number at a time. `late` is how long we were not running:
    /// whoever wanted to renew then could not, and must not lose its keys for that.
    pub fn expire(&mut self, now: Instant, late: Duration) -> usize {
        if !late.is_zero() {
            self.leases.extend_all(late);
        }
        let mut expired = self.leases.expired(now);
        expired.truncate(REVOKED_AT_ONCE_MAX);
        for &id in &expired {
            // Each is one revision, and there must be one left.
            if !self.may_write() || self.revoke(id).is_err() {
                break;
            }
        }
        expired.len()
    }

    pub fn watch(&mut self, stream: StreamId, id: i64, watching: Watching) -> Result<i64, WatchFault> {
        self.watchers.create(stream, id, watching, &self.keyspace)
    }

    pub fn pull(&mut self, stream: StreamId) -> Pulled {
        self.watchers.pull(stream, &self.keyspace)
    }

    /// Whether another revision may be handed out now; if not, the disk has to catch up first.
    pub fn may_write(&self) -> bool {
        self.keyspace.revision() < self.reserved
    }

    /// The disk now promises to begin above this revision, whatever happens.
    pub fn reserve(&mut self, revision: i64) {
        self.reserved = revision;
    }

    pub fn tick(&self) -> u64 {
        self.unsaved.tick
    }

    pub fn take_unsaved(&mut self) -> Unsaved {
        let next = Unsaved { tick: self.unsaved.tick, revision: self.unsaved.revision, ..Unsaved::default() };
        std::mem::replace(&mut self.unsaved, next)
    }

    /// The last of what there is to save: nothing is written after it, as the next process goes on from here.
    pub fn seal(&mut self) -> Unsaved {
        self.reserved = self.keyspace.revision();
        self.take_unsaved()
    }

    /// Takes back what could not be saved; what changed meanwhile is newer and stays.
    pub fn give_back(&mut self, unsaved: Unsaved) {
        for (key, kv) in unsaved.kvs {
            self.unsaved.kvs.entry(key).or_insert(kv);
        }
        for (id, ttl) in unsaved.leases {
            self.unsaved.leases.entry(id).or_insert(ttl);
        }
    }

    fn check_space(&self) -> Result<(), Fault> {
        if self.keyspace.is_full() { Err(Fault::NoSpace) } else { Ok(()) }
    }

    /// The one way to write: leases, watchers and the disk hear of whatever changed.
    fn change<T>(&mut self, write: impl FnOnce(&mut Change) -> T) -> T {
        let mut change = self.keyspace.change();
        let answer = write(&mut change);
        let revision = change.next_revision();
        let changed = change.finish();
        if changed.events.is_empty() {
            return answer;
        }
        for moved in &changed.lease_moves {
            self.leases.attach(&moved.key, moved.before, moved.now);
        }
        for event in &changed.events {
            self.unsaved.kvs.insert(event.key.clone(), event.clone());
        }
        self.unsaved.tick += 1;
        self.unsaved.revision = revision;
        self.watchers.note(revision, &changed.events);
        answer
    }
}

/// Expired leases revoked under one lock; the rest follows in the next round.
const REVOKED_AT_ONCE_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str, lease: i64) -> Put {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        Put { key, value: Some(value), lease: Some(lease), prev_kv: false }
    }

    fn state(now: Instant) -> State {
        let mut state = State::new(None, Limits::default(), now);
        state.grant(now, 1, 10).unwrap();
        state.grant(now, 2, 20).unwrap();
        state
    }

    fn keys_of(state: &State, lease: i64) -> Vec<Bytes> {
        state.leases().remaining(Instant::now(), lease).unwrap().keys
    }

    #[test]
    fn a_lease_holds_exactly_the_keys_that_name_it() {
        let mut state = state(Instant::now());
        state.put(&put("a", "1", 1)).unwrap();
        state.put(&put("b", "1", 1)).unwrap();
        state.put(&put("c", "1", 1)).unwrap();
        state.put(&put("b", "2", 2)).unwrap();
        state.delete(&Delete { keys: KeyRange::new("c".into(), vec![]), prev_kv: false });
        assert_eq!(keys_of(&state, 1), ["a"]);
        assert_eq!(keys_of(&state, 2), ["b"]);
        assert_eq!(state.put(&put("d", "1", 3)).unwrap_err(), Fault::LeaseNotFound);
        let kept = Put { lease: None, ..put("a", "2", 0) };
        state.put(&kept).unwrap();
        assert_eq!(keys_of(&state, 1), ["a"], "ignore_lease keeps it");
        state.revoke(1).unwrap();
        assert!(state.keyspace.get(b"a").is_none() && state.keyspace.get(b"b").is_some());
    }

    #[test]
    fn leases_end_at_their_time_each_at_one_revision() {
        let now = Instant::now();
        let mut state = state(now);
        for key in ["a", "b", "c"] {
            state.put(&put(key, "1", 1)).unwrap();
        }
        let revision = state.revision();
        assert_eq!(state.expire(now + Duration::from_secs(9), Duration::ZERO), 0);
        assert_eq!(state.expire(now + Duration::from_secs(10), Duration::ZERO), 1);
        assert_eq!(state.revision(), revision + 1);
        let late = Duration::from_secs(60);
        assert_eq!(state.expire(now + Duration::from_secs(70), late), 0, "the second did not get its time");
        assert_eq!(state.expire(now + Duration::from_secs(80), Duration::ZERO), 1);
        assert_eq!(state.revision(), revision + 1, "it held nothing");
    }

    #[test]
    fn what_is_unsaved_holds_each_key_once_and_newer_changes_win() {
        let mut state = state(Instant::now());
        state.put(&put("a", "1", 0)).unwrap();
        state.put(&put("a", "2", 0)).unwrap();
        state.put(&put("b", "1", 1)).unwrap();
        let failed = state.take_unsaved();
        assert_eq!((failed.kvs.len(), failed.revision, failed.tick), (2, 4, 5));
        state.revoke(1).unwrap();
        state.give_back(failed);
        let unsaved = state.take_unsaved();
        assert_eq!(unsaved.kvs["a".as_bytes()].value, "2");
        assert!(unsaved.kvs["b".as_bytes()].is_tombstone(), "it was deleted after the save had failed");
        assert_eq!((unsaved.leases[&1], unsaved.leases[&2]), (None, Some(Duration::from_secs(20))));
        assert_eq!((unsaved.revision, unsaved.tick), (5, 7));
        assert!(state.take_unsaved().kvs.is_empty());
    }

    #[test]
    fn no_lease_ends_when_no_revision_is_left_for_it() {
        let now = Instant::now();
        let mut state = state(now);
        state.put(&put("a", "1", 1)).unwrap();
        state.reserve(state.revision());
        assert!(!state.may_write());
        state.expire(now + Duration::from_secs(11), Duration::ZERO);
        assert!(state.keyspace.get(b"a").is_some());
        state.reserve(100);
        state.expire(now + Duration::from_secs(11), Duration::ZERO);
        assert!(state.keyspace.get(b"a").is_none());
    }
}
