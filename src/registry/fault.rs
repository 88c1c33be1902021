//! What can go wrong with one etcd, as far as it changes what we do next.

use std::fmt;
use std::time::Duration;

use etcd_client::Error;

use super::connect::ConnectError;
use super::explain::{explain, hinted};

#[derive(Debug)]
pub enum Fault {
    /// The history we asked for is gone: list again.
    Compacted,
    /// A message beyond our limit. Asking the same again would end the same.
    TooLarge,
    /// No answer in time.
    Silent {
        asked: &'static str,
        within: Duration,
    },
    Connect(ConnectError),
    Call(Error),
    /// etcd ended the watch and said why; an expired login ends this way too.
    Canceled {
        reason: String,
    },
    /// The stream ended without a word.
    Ended,
}

impl Fault {
    /// `OutOfRange` alone says nothing: a compacted revision, a future one and our own limit all share it.
    pub fn of(error: Error) -> Self {
        let Error::GRpcStatus(status) = &error else {
            return Self::Call(error);
        };
        if status.message().contains("message length too large") {
            return Self::TooLarge;
        }
        if status.message().contains("has been compacted") {
            return Self::Compacted;
        }
        Self::Call(error)
    }

    /// From a cancel message in the watch.
    pub fn canceled(compact_revision: i64, reason: &str) -> Self {
        if compact_revision > 0 || reason.contains("has been compacted") {
            return Self::Compacted;
        }
        Self::Canceled { reason: reason.to_owned() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted => f.write_str("the history we asked for is compacted"),
            Self::TooLarge => f.write_str("an answer is larger than we read"),
            Self::Silent { asked, within } => write!(f, "no answer to {asked} within {within:?}"),
            Self::Connect(error) => error.fmt(f),
            Self::Call(error) => f.write_str(&explain(error)),
            Self::Canceled { reason } if reason.is_empty() => f.write_str("etcd canceled the watch"),
            Self::Canceled { reason } => write!(f, "etcd canceled the watch: {}", hinted(reason)),
            Self::Ended => f.write_str("etcd ended the watch"),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    fn out_of_range(message: &str) -> Fault {
        Fault::of(Error::GRpcStatus(tonic::Status::out_of_range(message)))
    }

    #[test]
    fn one_code_with_three_meanings_is_told_apart_by_its_text() {
        let compacted = out_of_range("etcdserver: mvcc: required revision has been compacted");
        assert!(matches!(compacted, Fault::Compacted));
        let ours = out_of_range("Error, decoded message length too large: found 14500000 bytes, the limit is: 4194304 bytes");
        assert!(matches!(ours, Fault::TooLarge));
        assert!(matches!(out_of_range("etcdserver: mvcc: required revision is a future revision"), Fault::Call(_)));
    }

    #[test]
    fn a_cancel_message_of_a_compaction_need_not_give_a_reason() {
        assert!(matches!(Fault::canceled(837, ""), Fault::Compacted));
        let denied = Fault::canceled(0, "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
        assert!(denied.to_string().contains("permission denied"));
    }
}
