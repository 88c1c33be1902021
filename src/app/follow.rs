//! Who follows etcd: one reflector for our own prefix, one for each source, and what they all say as one reading.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::{RegistryReading, RejectedRecord, SourceReading};
use crate::config::{AddressGuard, EtcdConfig, RegistryConfig};
use crate::model::Event;
use crate::registry::{self, Layout, REJECTED_LISTED_MAX, RegistryReport, RegistryStatus, Rejected};

pub struct Following {
    config: RegistryConfig,
    guard: Arc<AddressGuard>,
    own: (Layout, Arc<RegistryStatus>),
    sources: Vec<(Layout, Arc<RegistryStatus>)>,
}

impl Following {
    /// `kind` as the configuration has it: `etcd` or `embedded`.
    pub fn new(config: &RegistryConfig, kind: &'static str, guard: Arc<AddressGuard>) -> Self {
        let status = || Arc::new(RegistryStatus::new(kind));
        let own = Layout::Own(registry::Prefix::new(&config.prefix));
        let sources = Layout::sources(&config.prefix, &config.sources);
        let sources = sources.map(|layout| (layout, status())).collect();
        Self { config: config.clone(), guard, own: (own, status()), sources }
    }

    /// Ends once `shutdown` says so and everything is written.
    pub fn start(&self, etcd: &EtcdConfig, events: &mpsc::Sender<Event>, shutdown: &watch::Receiver<bool>) -> JoinHandle<()> {
        let mut reflectors = JoinSet::new();
        for (layout, status) in std::iter::once(&self.own).chain(&self.sources) {
            let (followed, status, etcd) = ((layout.clone(), self.guard.clone()), status.clone(), etcd.clone());
            let (events, snapshot, shutdown) = (events.clone(), self.config.snapshot.clone(), shutdown.clone());
            reflectors.spawn(async move {
                registry::run(&etcd, followed, snapshot.as_deref(), events, status, shutdown).await;
            });
        }
        tokio::spawn(async move { while reflectors.join_next().await.is_some() {} })
    }

    pub fn reading(&self) -> RegistryReading {
        let mut all = reading(self.own.1.report());
        for (layout, status) in &self.sources {
            add(&mut all, layout.to_string(), reading(status.report()));
        }
        all.addresses_refused = self.guard.refused().to_vec();
        all
    }
}

fn reading(report: RegistryReport) -> RegistryReading {
    RegistryReading {
        kind: report.kind,
        connected: report.connected,
        endpoint: report.endpoint,
        trouble: report.trouble,
        source: report.source.map(|source| source.as_str()),
        stale: report.stale,
        n_keys: report.n_keys,
        last_event_age: report.last_event_age,
        last_answer_age: report.last_answer_age,
        n_rejected: report.n_rejected,
        rejected: report.rejected.into_iter().map(rejected).collect(),
        n_puts: report.n_puts,
        n_deletes: report.n_deletes,
        n_warnings: report.n_warnings,
        n_drifts: report.n_drifts,
        relists: report.n_relists.iter().map(|(reason, n)| (reason.as_str(), *n)).collect(),
        addresses_refused: Vec::new(),
        sources: Vec::new(),
    }
}

/// The whole is as connected and as current as the worst of its parts; counts add up.
fn add(all: &mut RegistryReading, keys: String, one: RegistryReading) {
    all.trouble = all.trouble.take().or(one.trouble.as_ref().map(|trouble| format!("source {keys}: {trouble}")));
    all.sources.push(SourceReading {
        keys,
        connected: one.connected,
        trouble: one.trouble,
        source: one.source,
        stale: one.stale,
        n_keys: one.n_keys,
        n_rejected: one.n_rejected,
    });
    all.connected &= one.connected;
    all.stale |= one.stale;
    all.last_event_age = both(all.last_event_age, one.last_event_age, Duration::min);
    all.last_answer_age = both(all.last_answer_age, one.last_answer_age, Duration::max);
    all.n_keys += one.n_keys;
    all.n_rejected += one.n_rejected;
    let room = REJECTED_LISTED_MAX.saturating_sub(all.rejected.len());
    all.rejected.extend(one.rejected.into_iter().take(room));
    all.n_puts += one.n_puts;
    all.n_deletes += one.n_deletes;
    all.n_warnings += one.n_warnings;
    all.n_drifts += one.n_drifts;
    for ((_, all), (_, one)) in all.relists.iter_mut().zip(one.relists) {
        *all += one;
    }
}

fn both(a: Option<Duration>, b: Option<Duration>, which: fn(Duration, Duration) -> Duration) -> Option<Duration> {
    a.zip(b).map(|(a, b)| which(a, b)).or(a).or(b)
}

fn rejected(record: Rejected) -> RejectedRecord {
    let Rejected { key, revision, reason, keeping } = record;
    RejectedRecord { key, revision, reason, keeping }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(n: u64, connected: bool) -> RegistryReading {
        let age = Some(Duration::from_secs(n));
        let trouble = (!connected).then(|| "permission denied".to_owned());
        RegistryReading {
            connected,
            trouble,
            stale: !connected,
            n_keys: n,
            n_rejected: n as usize,
            last_event_age: age,
            last_answer_age: age,
            relists: vec![("start", n)],
            ..RegistryReading::default()
        }
    }

    #[test]
    fn the_whole_is_as_good_as_its_worst_part_and_says_which_that_is() {
        let mut all = one(5, true);
        add(&mut all, "/a/{instance}".to_owned(), one(2, true));
        assert!(all.connected && !all.stale && all.trouble.is_none());
        add(&mut all, "/b/{instance}".to_owned(), one(9, false));
        assert!(!all.connected && all.stale);
        assert_eq!(all.trouble.as_deref(), Some("source /b/{instance}: permission denied"));
        assert_eq!((all.n_keys, all.n_rejected, all.relists[0].1), (16, 16, 16));
        assert_eq!(all.last_event_age.zip(all.last_answer_age), Some((Duration::from_secs(2), Duration::from_secs(9))));
        let parts: Vec<_> = all.sources.iter().map(|source| (source.keys.as_str(), source.connected, source.n_keys)).collect();
        assert_eq!(parts, [("/a/{instance}", true, 2), ("/b/{instance}", false, 9)]);
    }
}
