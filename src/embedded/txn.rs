//! Transactions: which branch is taken, whether it may run, and running it. One put or delete is a
//! transaction of one operation, so there is one way to write.
//!
//! As in etcd, every comparison, also of a nested transaction, sees the keyspace as it was before the first
//! operation, and everything that can be refused is refused before the first operation: a change never stops half way.

use std::collections::HashSet;

use bytes::Bytes;

use super::fault::Fault;
use super::keyspace::{Change, Keyspace};
use super::kv::{KeyRange, Kv};
use super::lease::Leases;
use super::ops::{Compare, CompareWith, Delete, DeleteAnswer, Op, OpAnswer, Put, PutAnswer, Range, Txn, TxnAnswer};

impl Txn {
    /// Refuses a transaction that writes a key twice in what may run together.
    pub fn check_overlaps(&self) -> Result<(), Fault> {
        Writes::of(&self.success)?;
        Writes::of(&self.failure)?;
        Ok(())
    }
}

/// The operations that will run, nested branches already chosen.
pub struct Plan<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Range(&'a Range),
    Put(&'a Put),
    Delete(&'a Delete),
    Nested(Plan<'a>),
}

impl<'a> Plan<'a> {
    pub fn of(txn: &'a Txn, keyspace: &Keyspace) -> Self {
        let succeeded = txn.compares.iter().all(|compare| holds(compare, keyspace));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let steps = ops.iter().map(|op| match op {
            Op::Range(range) => Step::Range(range),
            Op::Put(put) => Step::Put(put),
            Op::Delete(delete) => Step::Delete(delete),
            Op::Txn(nested) => Step::Nested(Plan::of(nested, keyspace)),
        });
        Self { succeeded, steps: steps.collect() }
    }

    pub fn puts(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Put(_) => true,
            Step::Nested(plan) => plan.puts(),
            Step::Range(_) | Step::Delete(_) => false,
        })
    }

    /// Whether every operation will succeed. etcd looks at all puts before the first range.
    pub fn check(&self, keyspace: &Keyspace, leases: &Leases) -> Result<(), Fault> {
        self.each(&mut |step| match step {
            Step::Put(put) => check_put(put, keyspace, leases),
            _ => Ok(()),
        })?;
        self.each(&mut |step| match step {
            Step::Range(range) if range.revision != 0 => keyspace.check_readable(range.revision),
            _ => Ok(()),
        })
    }

    pub fn run(&self, change: &mut Change) -> Result<TxnAnswer, Fault> {
        let mut answers = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            answers.push(match step {
                Step::Range(range) => OpAnswer::Range(change.range(range)?),
                Step::Put(put) => OpAnswer::Put(run_put(put, change)),
                Step::Delete(delete) => OpAnswer::Delete(run_delete(delete, change)),
                Step::Nested(plan) => OpAnswer::Txn(plan.run(change)?),
            });
        }
        Ok(TxnAnswer { revision: change.revision(), succeeded: self.succeeded, answers })
    }

    fn each(&self, check: &mut impl FnMut(&Step) -> Result<(), Fault>) -> Result<(), Fault> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Nested(plan) => plan.each(check),
            step => check(step),
        })
    }
}

fn holds(compare: &Compare, keyspace: &Keyspace) -> bool {
    let mut found = keyspace.live(&compare.keys).peekable();
    if found.peek().is_some() {
        return found.all(|kv| compare.holds_for(kv));
    }
    // A key that is not there has version 0, revisions 0 and no lease, but no value to compare with.
    let absent = Kv::tombstone(Bytes::new(), 0);
    !matches!(compare.with, CompareWith::Value(_)) && compare.holds_for(&absent)
}

pub fn check_put(put: &Put, keyspace: &Keyspace, leases: &Leases) -> Result<(), Fault> {
    if (put.value.is_none() || put.lease.is_none()) && keyspace.get(&put.key).is_none() {
        return Err(Fault::KeyNotFound);
    }
    leases.check(put.lease.unwrap_or(0))
}

pub fn run_put(put: &Put, change: &mut Change) -> PutAnswer {
    let prev = change.get(&put.key).cloned();
    let value = put.value.clone().or_else(|| prev.as_ref().map(|kv| kv.value.clone())).unwrap_or_default();
    let lease = put.lease.or_else(|| prev.as_ref().map(|kv| kv.lease)).unwrap_or(0);
    change.put(put.key.clone(), value, lease);
    PutAnswer { revision: change.revision(), prev_kv: prev.filter(|_| put.prev_kv) }
}

pub fn run_delete(delete: &Delete, change: &mut Change) -> DeleteAnswer {
    let deleted = change.delete(&delete.keys);
    DeleteAnswer {
        revision: change.revision(),
        deleted: deleted.len(),
        prev_kvs: if delete.prev_kv { deleted } else { Vec::new() },
    }
}

/// What a list of operations may write, to find a key that is written twice.
struct Writes<'a> {
    puts: HashSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// The order of the checks is etcd's: this level's deletes, nested transactions one after the other, this level's puts.
    /// The branches of one nested transaction exclude each other, so they may put the same key.
    fn of(ops: &'a [Op]) -> Result<Self, Fault> {
        let mut writes = Self { puts: HashSet::new(), deletes: Vec::new() };
        for op in ops {
            if let Op::Delete(delete) = op {
                writes.deletes.push(&delete.keys);
            }
        }
        for op in ops {
            let Op::Txn(nested) = op else { continue };
            let (success, failure) = (Self::of(&nested.success)?, Self::of(&nested.failure)?);
            for key in success.puts.union(&failure.puts) {
                writes.put(key)?;
            }
            writes.deletes.extend(success.deletes);
            writes.deletes.extend(failure.deletes);
        }
        for op in ops {
            if let Op::Put(put) = op {
                writes.put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn put(&mut self, key: &'a Bytes) -> Result<(), Fault> {
        // etcd does not notice a delete of everything from some key on, so a client may rely on that being allowed.
        let noticed = |keys: &&&KeyRange| !matches!(keys, KeyRange::From(_));
        let deleted = self.deletes.iter().filter(noticed).any(|keys| keys.contains(key));
        if deleted || !self.puts.insert(key) { Err(Fault::DuplicateKey) } else { Ok(()) }
    }
}
