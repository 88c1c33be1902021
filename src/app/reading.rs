//! What the admin endpoint is given to read, in its own words.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::drains::Drains;
use crate::admin::{ProxyReading, RegistryReading, RejectedRecord, Sources};
use crate::catalog::{History, Live};
use crate::proxy::{self, Proxy};
use crate::registry::{RegistryStatus, Rejected};

pub struct Parts<'a> {
    pub live: &'a Arc<Live>,
    pub history: &'a Arc<History>,
    pub status: &'a Arc<RegistryStatus>,
    pub proxy: &'a Proxy,
    pub listeners: &'a [SocketAddr],
    pub drains: &'a Arc<Mutex<Drains>>,
    pub leaving: &'a watch::Receiver<bool>,
    pub started_at: SystemTime,
}

pub fn sources(parts: &Parts<'_>) -> Sources {
    let status = parts.status.clone();
    let (proxy, listeners, drains) = (parts.proxy.clone(), parts.listeners.to_vec(), parts.drains.clone());
    Sources {
        live: parts.live.clone(),
        history: parts.history.clone(),
        timings: Arc::default(),
        registry: Box::new(move || registry(&status)),
        proxy: Box::new(move || proxy_reading(&proxy, &listeners, &drains)),
        leaving: parts.leaving.clone(),
        plain_path: |path| proxy::plain_path(path).map(Cow::into_owned).map_err(|refusal| refusal.to_string()),
        version: env!("CARGO_PKG_VERSION"),
        revision: option_env!("POINTSMAN_REVISION").unwrap_or_default(),
        started_at: parts.started_at,
    }
}

fn registry(status: &RegistryStatus) -> RegistryReading {
    let report = status.report();
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
    }
}

fn rejected(record: Rejected) -> RejectedRecord {
    let Rejected { key, revision, reason, keeping } = record;
    RejectedRecord { key, revision, reason, keeping }
}

fn proxy_reading(proxy: &Proxy, listeners: &[SocketAddr], drains: &Mutex<Drains>) -> ProxyReading {
    let stats = proxy.stats();
    ProxyReading {
        connections: listeners.iter().copied().zip(stats.connections).collect(),
        received_bytes: stats.received_bytes,
        sent_bytes: stats.sent_bytes,
        unrouted: stats.unrouted,
        drain_forced_closes: stats.drain_forced_closes,
        drains_active: drains.lock().unwrap_or_else(PoisonError::into_inner).n_active(),
    }
}
