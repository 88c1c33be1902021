//! Plain answers → etcd's response messages. Here keys and values are copied, once, and never under the lock.

use std::sync::Arc;

use etcd_client::proto::{
    PbDeleteResponse, PbEvent, PbKeyValue, PbPutResponse, PbRangeResponse, PbResponseHeader, PbResponseOp, PbTxnOpResponse,
    PbTxnResponse,
};

use crate::embedded::kv::Kv;
use crate::embedded::ops::{DeleteAnswer, OpAnswer, PutAnswer, RangeAnswer, TxnAnswer};
use crate::embedded::watchers::Event;

pub fn range(header: Option<PbResponseHeader>, answer: RangeAnswer) -> PbRangeResponse {
    let kv = if answer.keys_only { key_alone } else { key_value };
    PbRangeResponse {
        header,
        kvs: answer.kvs.iter().map(kv).collect(),
        more: answer.more,
        count: i64::try_from(answer.count).unwrap_or(i64::MAX),
    }
}

pub fn put(header: Option<PbResponseHeader>, answer: PutAnswer) -> PbPutResponse {
    PbPutResponse { header, prev_kv: answer.prev_kv.as_ref().map(key_value) }
}

pub fn delete(header: Option<PbResponseHeader>, answer: DeleteAnswer) -> PbDeleteResponse {
    PbDeleteResponse {
        header,
        deleted: i64::try_from(answer.deleted).unwrap_or(i64::MAX),
        prev_kvs: answer.prev_kvs.iter().map(key_value).collect(),
    }
}

pub fn txn(header: Option<PbResponseHeader>, answer: TxnAnswer) -> PbTxnResponse {
    PbTxnResponse {
        header,
        succeeded: answer.succeeded,
        responses: answer.answers.into_iter().map(|answer| PbResponseOp { response: Some(op(answer)) }).collect(),
    }
}

pub fn event(event: &Event) -> PbEvent {
    PbEvent {
        r#type: i32::from(event.kv.is_tombstone()),
        kv: Some(key_value(&event.kv)),
        prev_kv: event.prev_kv.as_ref().map(key_value),
    }
}

/// Answers within a transaction say the revision and leave the rest of the header to the whole.
fn op(answer: OpAnswer) -> PbTxnOpResponse {
    let at = |revision| Some(PbResponseHeader { revision, ..PbResponseHeader::default() });
    match answer {
        OpAnswer::Range(answer) => PbTxnOpResponse::ResponseRange(range(at(answer.revision), answer)),
        OpAnswer::Put(answer) => PbTxnOpResponse::ResponsePut(put(at(answer.revision), answer)),
        OpAnswer::Delete(answer) => PbTxnOpResponse::ResponseDeleteRange(delete(at(answer.revision), answer)),
        OpAnswer::Txn(answer) => PbTxnOpResponse::ResponseTxn(txn(at(0), answer)),
    }
}

fn key_value(kv: &Arc<Kv>) -> PbKeyValue {
    PbKeyValue { value: kv.value.to_vec(), ..key_alone(kv) }
}

fn key_alone(kv: &Arc<Kv>) -> PbKeyValue {
    PbKeyValue {
        key: kv.key.to_vec(),
        value: Vec::new(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}
