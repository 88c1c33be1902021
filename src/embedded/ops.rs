//! What can be asked of the keyspace and what it answers, as plain values. Who makes one has checked it
//! (`rpc/parse.rs`): keys are not empty, options do not contradict each other, limits are kept.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use super::kv::{KeyRange, Kv};

#[derive(Clone, Debug)]
pub struct Range {
    pub keys: KeyRange,
    /// 0: no limit.
    pub limit: usize,
    /// 0 or less: now.
    pub revision: i64,
    pub sort: Option<Sort>,
    pub keys_only: bool,
    pub count_only: bool,
    /// Bounds on `mod_revision` and `create_revision`; `None` when not asked for.
    pub mod_revision: Within,
    pub create_revision: Within,
}

impl Range {
    /// etcd sorts before it cuts, but for a property that is named without an order: then it sorts the first page of keys.
    pub fn sorts_before_limit(&self) -> bool {
        let filtered = self.mod_revision.is_bounded() || self.create_revision.is_bounded();
        self.sort.is_some_and(|sort| sort.order_given || filtered)
    }
}

/// An inclusive range of revisions, open where 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Within {
    pub min: i64,
    pub max: i64,
}

impl Within {
    fn is_bounded(self) -> bool {
        self.min != 0 || self.max != 0
    }

    pub fn contains(self, revision: i64) -> bool {
        (self.min == 0 || revision >= self.min) && (self.max == 0 || revision <= self.max)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Sort {
    pub by: SortBy,
    pub descending: bool,
    /// Otherwise ascending by default.
    pub order_given: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    Key,
    Version,
    CreateRevision,
    ModRevision,
    Value,
}

impl Sort {
    pub fn order(self, a: &Kv, b: &Kv) -> Ordering {
        let ascending = match self.by {
            SortBy::Key => a.key.cmp(&b.key),
            SortBy::Version => a.version.cmp(&b.version),
            SortBy::CreateRevision => a.create_revision.cmp(&b.create_revision),
            SortBy::ModRevision => a.mod_revision.cmp(&b.mod_revision),
            SortBy::Value => a.value.cmp(&b.value),
        };
        if self.descending { ascending.reverse() } else { ascending }
    }
}

#[derive(Clone, Debug)]
pub struct Put {
    pub key: Bytes,
    /// `None`: keep the value there is (`ignore_value`).
    pub value: Option<Bytes>,
    /// `None`: keep the lease there is (`ignore_lease`).
    pub lease: Option<i64>,
    pub prev_kv: bool,
}

#[derive(Clone, Debug)]
pub struct Delete {
    pub keys: KeyRange,
    pub prev_kv: bool,
}

#[derive(Clone, Debug)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

impl Txn {
    /// Bytes of keys and values, which is what a request's size is made of.
    pub fn size(&self) -> usize {
        let compares = self.compares.iter().map(|compare| match &compare.with {
            CompareWith::Value(value) => compare.keys.size() + value.len(),
            _ => compare.keys.size(),
        });
        let ops = self.success.iter().chain(&self.failure).map(|op| match op {
            Op::Range(range) => range.keys.size(),
            Op::Put(put) => put.size(),
            Op::Delete(delete) => delete.keys.size(),
            Op::Txn(nested) => nested.size(),
        });
        compares.chain(ops).sum()
    }

    /// Whether neither branch writes.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::Delete(_) => false,
            Op::Txn(nested) => nested.is_read_only(),
        })
    }
}

impl Put {
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

#[derive(Clone, Debug)]
pub enum Op {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
}

#[derive(Clone, Debug)]
pub struct Compare {
    pub keys: KeyRange,
    pub with: CompareWith,
    pub result: CompareResult,
}

#[derive(Clone, Debug)]
pub enum CompareWith {
    Version(i64),
    CreateRevision(i64),
    ModRevision(i64),
    Value(Bytes),
    Lease(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    Equal,
    Greater,
    Less,
    NotEqual,
}

impl Compare {
    pub fn holds_for(&self, kv: &Kv) -> bool {
        let order = match &self.with {
            CompareWith::Version(version) => kv.version.cmp(version),
            CompareWith::CreateRevision(revision) => kv.create_revision.cmp(revision),
            CompareWith::ModRevision(revision) => kv.mod_revision.cmp(revision),
            CompareWith::Value(value) => kv.value.cmp(value),
            CompareWith::Lease(lease) => kv.lease.cmp(lease),
        };
        match self.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        }
    }
}

#[derive(Debug)]
pub struct RangeAnswer {
    /// The revision of the whole keyspace when it was read.
    pub revision: i64,
    pub kvs: Vec<Arc<Kv>>,
    /// Keys in the range, before limit and filters.
    pub count: usize,
    pub more: bool,
    pub keys_only: bool,
}

#[derive(Debug)]
pub struct PutAnswer {
    pub revision: i64,
    pub prev_kv: Option<Arc<Kv>>,
}

#[derive(Debug)]
pub struct DeleteAnswer {
    pub revision: i64,
    pub deleted: usize,
    /// Empty unless asked for.
    pub prev_kvs: Vec<Arc<Kv>>,
}

#[derive(Debug)]
pub struct TxnAnswer {
    pub revision: i64,
    pub succeeded: bool,
    pub answers: Vec<OpAnswer>,
}

#[derive(Debug)]
pub enum OpAnswer {
    Range(RangeAnswer),
    Put(PutAnswer),
    Delete(DeleteAnswer),
    Txn(TxnAnswer),
}
