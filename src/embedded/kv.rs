//! The nouns of the keyspace: one version of one key, and a range of keys as etcd writes it.

use std::ops::Bound;

use bytes::Bytes;

/// One version of one key. Shared by the keyspace, its log and the answers under way, never copied.
///
/// A deletion is a version too, a tombstone: `version` 0, and nothing but the key and `mod_revision`,
/// which is how etcd shows it to watchers.
#[derive(Debug, PartialEq, Eq)]
pub struct Kv {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    /// 0: no lease.
    pub lease: i64,
}

impl Kv {
    pub fn tombstone(key: Bytes, mod_revision: i64) -> Self {
        Self { key, value: Bytes::new(), create_revision: 0, mod_revision, version: 0, lease: 0 }
    }

    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// What one version costs in memory, roughly: its bytes and the allocations that hold them.
    pub fn cost(&self) -> usize {
        const OVERHEAD: usize = 200;
        self.key.len() + self.value.len() + OVERHEAD
    }
}

/// The keys a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    One(Bytes),
    /// `from <= key < to`; may be empty.
    Span {
        from: Bytes,
        to: Bytes,
    },
    /// `from <= key`
    From(Bytes),
}

impl KeyRange {
    /// etcd's convention: no end is one key, the end `\0` is every key from `key` on.
    pub fn new(key: Vec<u8>, range_end: Vec<u8>) -> Self {
        let key = Bytes::from(key);
        match range_end.as_slice() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Span { from: key, to: Bytes::from(range_end) },
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Span { from, to } => from.as_ref() <= key && key < to.as_ref(),
            Self::From(from) => from.as_ref() <= key,
        }
    }

    /// Whether no key can ever be in it.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Span { from, to } if from >= to)
    }

    /// Bytes of what names it.
    pub fn size(&self) -> usize {
        match self {
            Self::One(key) | Self::From(key) => key.len(),
            Self::Span { from, to } => from.len() + to.len(),
        }
    }

    /// For `BTreeMap::range`, which wants its bounds in order: only call it when not `is_empty`.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Self::One(key) => (Bound::Included(key), Bound::Included(key)),
            Self::Span { from, to } => (Bound::Included(from), Bound::Excluded(to)),
            Self::From(from) => (Bound::Included(from), Bound::Unbounded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, end: &str, inside: &[&str], outside: &[&str]) {
        let range = KeyRange::new(key.into(), end.into());
        for key in inside {
            assert!(range.contains(key.as_bytes()), "{range:?} should contain {key:?}");
        }
        for key in outside {
            assert!(!range.contains(key.as_bytes()), "{range:?} should not contain {key:?}");
        }
    }

    #[test]
    fn ranges_are_read_as_etcd_writes_them() {
        check("a", "", &["a"], &["", "aa", "b"]);
        check("a", "c", &["a", "ab", "b"], &["", "c", "ca"]);
        check("a", "\0", &["a", "b", "zz"], &["", "A"]);
        check("\0", "\0", &["\0", "a"], &[""]);
        check("c", "a", &[], &["a", "b", "c"]);
    }
}
