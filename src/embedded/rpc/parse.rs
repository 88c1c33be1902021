//! etcd's request messages → plain operations. What is wrong with a request by itself is found here, in the order in
//! which etcd looks, as a client sees the first fault only.

use bytes::Bytes;
use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTargetUnion, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};

use crate::embedded::fault::Fault;
use crate::embedded::kv::KeyRange;
use crate::embedded::ops::{Compare, CompareResult, CompareWith, Delete, Op, Put, Range, Sort, SortBy, Txn, Within};

pub fn range(pb: PbRangeRequest) -> Result<Range, Fault> {
    if pb.key.is_empty() {
        return Err(Fault::EmptyKey);
    }
    let sort = sort(pb.sort_order, pb.sort_target)?;
    Ok(Range {
        keys: KeyRange::new(pb.key, pb.range_end),
        limit: usize::try_from(pb.limit).unwrap_or(0),
        revision: pb.revision,
        sort,
        keys_only: pb.keys_only,
        count_only: pb.count_only,
        mod_revision: Within { min: pb.min_mod_revision, max: pb.max_mod_revision },
        create_revision: Within { min: pb.min_create_revision, max: pb.max_create_revision },
    })
}

pub fn put(pb: PbPutRequest) -> Result<Put, Fault> {
    if pb.key.is_empty() {
        return Err(Fault::EmptyKey);
    }
    if pb.ignore_value && !pb.value.is_empty() {
        return Err(Fault::ValueProvided);
    }
    if pb.ignore_lease && pb.lease != 0 {
        return Err(Fault::LeaseProvided);
    }
    Ok(Put {
        key: pb.key.into(),
        value: (!pb.ignore_value).then(|| pb.value.into()),
        lease: (!pb.ignore_lease).then_some(pb.lease),
        prev_kv: pb.prev_kv,
    })
}

pub fn delete(pb: PbDeleteRequest) -> Result<Delete, Fault> {
    if pb.key.is_empty() {
        return Err(Fault::EmptyKey);
    }
    Ok(Delete { keys: KeyRange::new(pb.key, pb.range_end), prev_kv: pb.prev_kv })
}

pub fn txn(pb: PbTxnRequest) -> Result<Txn, Fault> {
    let txn = txn_within(pb, TXN_OPS_MAX)?;
    txn.check_overlaps()?;
    Ok(txn)
}

/// A nested transaction gets what its parents leave of the limit.
fn txn_within(pb: PbTxnRequest, n_allowed: usize) -> Result<Txn, Fault> {
    let n_ops = pb.compare.len().max(pb.success.len()).max(pb.failure.len());
    let n_left = n_allowed.checked_sub(n_ops).ok_or(Fault::TooManyOps)?;
    Ok(Txn {
        compares: pb.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: pb.success.into_iter().map(|pb| op(pb, n_left)).collect::<Result<_, _>>()?,
        failure: pb.failure.into_iter().map(|pb| op(pb, n_left)).collect::<Result<_, _>>()?,
    })
}

fn op(pb: PbTxnRequestOp, n_left: usize) -> Result<Op, Fault> {
    match pb.request {
        Some(PbTxnOpRequest::RequestRange(pb)) => range(pb).map(Op::Range),
        Some(PbTxnOpRequest::RequestPut(pb)) => put(pb).map(Op::Put),
        Some(PbTxnOpRequest::RequestDeleteRange(pb)) => delete(pb).map(Op::Delete),
        Some(PbTxnOpRequest::RequestTxn(pb)) => txn_within(pb, n_left).map(Op::Txn),
        None => Err(Fault::KeyNotFound),
    }
}

/// A comparison that names one property and brings a value for another compares with zero, as in etcd.
fn compare(pb: PbCompare) -> Result<Compare, Fault> {
    if pb.key.is_empty() {
        return Err(Fault::EmptyKey);
    }
    let result = match pb.result {
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => CompareResult::Equal,
    };
    let with = match (pb.target, pb.target_union) {
        (1, Some(PbTargetUnion::CreateRevision(revision))) => CompareWith::CreateRevision(revision),
        (1, _) => CompareWith::CreateRevision(0),
        (2, Some(PbTargetUnion::ModRevision(revision))) => CompareWith::ModRevision(revision),
        (2, _) => CompareWith::ModRevision(0),
        (3, Some(PbTargetUnion::Value(value))) => CompareWith::Value(value.into()),
        (3, _) => CompareWith::Value(Bytes::new()),
        (4, Some(PbTargetUnion::Lease(lease))) => CompareWith::Lease(lease),
        (4, _) => CompareWith::Lease(0),
        (_, Some(PbTargetUnion::Version(version))) => CompareWith::Version(version),
        (_, _) => CompareWith::Version(0),
    };
    Ok(Compare { keys: KeyRange::new(pb.key, pb.range_end), with, result })
}

/// etcd sorts as soon as either is given: a property other than the key ascends unless said otherwise.
fn sort(order: i32, target: i32) -> Result<Option<Sort>, Fault> {
    let by = match target {
        0 => SortBy::Key,
        1 => SortBy::Version,
        2 => SortBy::CreateRevision,
        3 => SortBy::ModRevision,
        4 => SortBy::Value,
        _ => return Err(Fault::InvalidSort),
    };
    match order {
        // Keys come in ascending order anyway.
        0 | 1 if by == SortBy::Key => Ok(None),
        0 | 1 => Ok(Some(Sort { by, descending: false, order_given: order == 1 })),
        2 => Ok(Some(Sort { by, descending: true, order_given: true })),
        _ => Err(Fault::InvalidSort),
    }
}

/// etcd's default for operations, and for comparisons, in one transaction.
const TXN_OPS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn put_op(key: &str) -> PbTxnRequestOp {
        let put = PbPutRequest { key: key.into(), ..PbPutRequest::default() };
        PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestPut(put)) }
    }

    fn nested(ops: Vec<PbTxnRequestOp>) -> PbTxnRequestOp {
        let txn = PbTxnRequest { success: ops, ..PbTxnRequest::default() };
        PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestTxn(txn)) }
    }

    fn check(ops: Vec<PbTxnRequestOp>, expected: Result<(), Fault>) {
        let txn = PbTxnRequest { success: ops, ..PbTxnRequest::default() };
        assert_eq!(super::txn(txn).map(|_| ()), expected);
    }

    #[test]
    fn a_transaction_has_128_operations_at_most_nested_ones_included() {
        let puts = |n: usize| (0..n).map(|n| put_op(&format!("k{n}"))).collect::<Vec<_>>();
        check(puts(128), Ok(()));
        check(puts(129), Err(Fault::TooManyOps));
        check(vec![nested(puts(127))], Ok(()));
        check(vec![nested(puts(128))], Err(Fault::TooManyOps));
    }

    #[test]
    fn a_key_is_written_once_in_what_runs_together() {
        check(vec![put_op("a"), put_op("b")], Ok(()));
        check(vec![put_op("a"), put_op("a")], Err(Fault::DuplicateKey));
        check(vec![put_op("a"), nested(vec![put_op("a")])], Err(Fault::DuplicateKey));
        check(vec![nested(vec![put_op("a")]), nested(vec![put_op("a")])], Err(Fault::DuplicateKey));
    }

    #[test]
    fn the_first_fault_is_told() {
        check(vec![put_op(""), put_op("a"), put_op("a")], Err(Fault::EmptyKey));
        check(vec![PbTxnRequestOp { request: None }], Err(Fault::KeyNotFound));
        let put = PbPutRequest { key: "a".into(), value: "1".into(), ignore_value: true, ..PbPutRequest::default() };
        assert_eq!(super::put(put).unwrap_err(), Fault::ValueProvided);
    }
}
