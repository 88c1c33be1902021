//! What the admin endpoint shows of the registry. Written by the watch, read by anybody, at any time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::applied::Applied;
use super::record::Rejected;

pub struct RegistryStatus {
    kind: &'static str,
    born: Instant,
    connected: AtomicBool,
    /// Of the last event handed out.
    revision: AtomicU64,
    n_keys: AtomicU64,
    /// Milliseconds since `born`, plus one; 0 is never.
    last_event: AtomicU64,
    last_answer: AtomicU64,
    n_puts: AtomicU64,
    n_deletes: AtomicU64,
    n_warnings: AtomicU64,
    n_drifts: AtomicU64,
    n_relists: [AtomicU64; RelistReason::ALL.len()],
    texts: Mutex<Texts>,
    source: watch::Sender<Option<Source>>,
}

/// Where the declarations in force came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Registry,
    /// The file of the last applied state; etcd has not answered yet.
    Snapshot,
}

/// Why everything was listed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelistReason {
    /// Nothing was known from this etcd yet.
    Start,
    /// History was compacted behind the revision we had reached.
    Compacted,
    /// A revision or a raft term lower than one we have seen: data was lost or restored.
    Backwards,
    /// Another registry answers: its epoch or its cluster id is not the one we knew.
    Epoch,
    /// A watch response too large to be read.
    Decode,
    /// A comparison found something that the watch had lost.
    Drift,
}

/// A moment's view of the numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistryReport {
    pub kind: &'static str,
    pub connected: bool,
    /// Whose answers we follow, or followed last.
    pub endpoint: Option<String>,
    /// Why there is no connection, in words.
    pub trouble: Option<String>,
    pub source: Option<Source>,
    /// What is in force is not known to be current.
    pub stale: bool,
    pub revision: u64,
    pub n_keys: u64,
    /// Since etcd last said something about a declared record.
    pub last_event_age: Option<Duration>,
    /// Since etcd last said anything at all.
    pub last_answer_age: Option<Duration>,
    pub n_rejected: usize,
    /// In the order of their keys, the first `REJECTED_LISTED_MAX`.
    pub rejected: Vec<Rejected>,
    pub n_puts: u64,
    pub n_deletes: u64,
    pub n_warnings: u64,
    /// Keys that a comparison found to differ.
    pub n_drifts: u64,
    pub n_relists: [(RelistReason, u64); RelistReason::ALL.len()],
}

#[derive(Default)]
struct Texts {
    endpoint: Option<String>,
    trouble: Option<String>,
    /// As many as etcd holds; each at most about a kilobyte.
    rejected: BTreeMap<String, Rejected>,
}

impl RegistryStatus {
    /// `kind` as the configuration has it: `etcd` or `embedded`.
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            born: Instant::now(),
            connected: AtomicBool::new(false),
            revision: AtomicU64::new(0),
            n_keys: AtomicU64::new(0),
            last_event: AtomicU64::new(0),
            last_answer: AtomicU64::new(0),
            n_puts: AtomicU64::new(0),
            n_deletes: AtomicU64::new(0),
            n_warnings: AtomicU64::new(0),
            n_drifts: AtomicU64::new(0),
            n_relists: Default::default(),
            texts: Mutex::default(),
            source: watch::Sender::new(None),
        }
    }

    /// Whether a whole state was handed out, from etcd or from the disk. Never becomes false again.
    pub fn is_synced(&self) -> bool {
        self.source.borrow().is_some()
    }

    /// Waits until `is_synced`.
    pub async fn synced(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.source.subscribe().wait_for(Option::is_some).await;
    }

    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    pub fn report(&self) -> RegistryReport {
        let texts = self.texts();
        let source = *self.source.borrow();
        let connected = self.is_connected();
        RegistryReport {
            kind: self.kind,
            connected,
            endpoint: texts.endpoint.clone(),
            trouble: texts.trouble.clone(),
            source,
            stale: !(connected && source == Some(Source::Registry)),
            revision: self.revision.load(Relaxed),
            n_keys: self.n_keys.load(Relaxed),
            last_event_age: self.age(&self.last_event),
            last_answer_age: self.age(&self.last_answer),
            n_rejected: texts.rejected.len(),
            rejected: texts.rejected.values().take(REJECTED_LISTED_MAX).cloned().collect(),
            n_puts: self.n_puts.load(Relaxed),
            n_deletes: self.n_deletes.load(Relaxed),
            n_warnings: self.n_warnings.load(Relaxed),
            n_drifts: self.n_drifts.load(Relaxed),
            n_relists: RelistReason::ALL.map(|reason| (reason, self.n_relists[reason as usize].load(Relaxed))),
        }
    }

    pub(super) fn connected_to(&self, endpoint: &str) {
        let mut texts = self.texts();
        texts.endpoint = Some(endpoint.to_owned());
        texts.trouble = None;
        self.connected.store(true, Relaxed);
    }

    /// Whether there was a connection to lose.
    pub(super) fn disconnected(&self, trouble: String) -> bool {
        self.texts().trouble = Some(trouble);
        self.connected.swap(false, Relaxed)
    }

    pub(super) fn answered(&self) {
        self.stamp(&self.last_answer);
    }

    pub(super) fn relisted(&self, reason: RelistReason) {
        self.n_relists[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn drifted(&self, n_keys: usize) {
        self.n_drifts.fetch_add(n_keys as u64, Relaxed);
    }

    /// Before the event is handed out.
    pub(super) fn applied(&self, applied: &Applied, n_keys: usize) {
        self.n_puts.fetch_add(applied.n_puts, Relaxed);
        self.n_deletes.fetch_add(applied.n_deletes, Relaxed);
        self.n_warnings.fetch_add(applied.warnings.len() as u64, Relaxed);
        self.n_keys.store(n_keys as u64, Relaxed);
        if applied.rejected.is_empty() && applied.cleared.is_empty() {
            return;
        }
        let mut texts = self.texts();
        for key in &applied.cleared {
            texts.rejected.remove(key);
        }
        for rejected in &applied.rejected {
            texts.rejected.insert(rejected.key.clone(), rejected.clone());
        }
    }

    /// After the event was handed out.
    pub(super) fn handed_out(&self, revision: u64, source: Source) {
        self.revision.store(revision, Relaxed);
        self.stamp(&self.last_event);
        self.source.send_if_modified(|now| now.replace(source) != Some(source));
    }

    fn stamp(&self, cell: &AtomicU64) {
        cell.store(self.born.elapsed().as_millis() as u64 + 1, Relaxed);
    }

    fn age(&self, cell: &AtomicU64) -> Option<Duration> {
        let stamp = cell.load(Relaxed).checked_sub(1)?;
        Some(self.born.elapsed().saturating_sub(Duration::from_millis(stamp)))
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RelistReason {
    pub const ALL: [Self; 6] = [Self::Start, Self::Compacted, Self::Backwards, Self::Epoch, Self::Decode, Self::Drift];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Compacted => "compacted",
            Self::Backwards => "backwards",
            Self::Epoch => "epoch",
            Self::Decode => "decode",
            Self::Drift => "drift",
        }
    }
}

impl fmt::Display for RelistReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Snapshot => "snapshot",
        }
    }
}

/// All are counted; a page of a thousand is more than anybody reads.
pub const REJECTED_LISTED_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(n: usize) -> Rejected {
        Rejected { key: format!("/p/routes/{n:05}"), revision: 1, reason: "no".to_owned(), keeping: None }
    }

    #[test]
    fn rejections_are_all_counted_and_listed_up_to_a_bound() {
        let status = RegistryStatus::new("etcd");
        let many = Applied { rejected: (0..1500).map(rejected).collect(), ..Applied::default() };
        status.applied(&many, 1500);
        let report = status.report();
        assert_eq!((report.n_rejected, report.rejected.len()), (1500, REJECTED_LISTED_MAX));
        assert_eq!(report.rejected[7], rejected(7));

        let cleared = (0..1499).map(|n| rejected(n).key).collect();
        status.applied(&Applied { cleared, ..Applied::default() }, 1500);
        assert_eq!(status.report().rejected, [rejected(1499)]);
    }

    #[tokio::test]
    async fn it_is_synced_once_something_was_handed_out_and_stale_until_etcd_confirms() {
        let status = RegistryStatus::new("etcd");
        assert!(!status.is_synced() && status.report().last_event_age.is_none());
        status.handed_out(7, Source::Snapshot);
        status.synced().await;
        status.connected_to("http://a");
        assert!(status.report().stale, "what is in force came from the disk");
        status.handed_out(9, Source::Registry);
        let report = status.report();
        assert!(!report.stale && report.revision == 9 && report.last_event_age.is_some());
        status.disconnected("gone".to_owned());
        assert!(status.report().stale && status.is_synced());
    }
}
