//! What the admin endpoint is given to read, in its own words.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::drains::Drains;
use super::follow::Following;
use super::upgrade::Upgrades;
use crate::acme;
use crate::admin::{Access, AcmeReading, ProxyReading, Sources};
use crate::catalog::{History, Live};
use crate::certs::RejectedFiles;
use crate::prober::Prober;
use crate::proxy::Proxy;

pub struct Parts<'a> {
    pub live: &'a Arc<Live>,
    pub history: &'a Arc<History>,
    pub following: &'a Arc<Following>,
    pub proxy: &'a Proxy,
    pub prober: &'a Prober,
    pub access: Access,
    pub listeners: &'a [SocketAddr],
    pub drains: &'a Arc<Mutex<Drains>>,
    pub upgrades: &'a Arc<Upgrades>,
    pub leaving: &'a watch::Receiver<bool>,
    pub terminating: &'a [(usize, SocketAddr)],
    pub rejected_files: Arc<RejectedFiles>,
    /// `None`: certificates are not ordered here.
    pub acme: Option<Arc<acme::Status>>,
    pub started_at: SystemTime,
}

pub fn sources(parts: Parts<'_>) -> Sources {
    let (following, rejected_files) = (parts.following.clone(), parts.rejected_files.clone());
    let (proxy, listeners, drains) = (parts.proxy.clone(), parts.listeners.to_vec(), parts.drains.clone());
    let upgrades = parts.upgrades.clone();
    Sources {
        live: parts.live.clone(),
        history: parts.history.clone(),
        timings: Arc::default(),
        probe_lateness: parts.prober.lateness(),
        access: parts.access,
        registry: Box::new(move || following.reading()),
        proxy: Box::new(move || proxy_reading(&proxy, &listeners, &drains, &upgrades)),
        terminating: parts.terminating.to_vec(),
        certificate_files: Box::new(move || rejected_files.list().into_iter().map(|r| (r.file, r.reason)).collect()),
        acme: Box::new(move || {
            parts.acme.as_ref().map(|acme| AcmeReading { is_renewer: acme.is_renewer(), orders: acme.orders() })
        }),
        leaving: parts.leaving.clone(),
        version: env!("CARGO_PKG_VERSION"),
        revision: option_env!("POINTSMAN_REVISION").unwrap_or_default(),
        started_at: parts.started_at,
    }
}

fn proxy_reading(proxy: &Proxy, listeners: &[SocketAddr], drains: &Mutex<Drains>, upgrades: &Upgrades) -> ProxyReading {
    let stats = proxy.stats();
    ProxyReading {
        proxy_headers: stats.headers().collect(),
        challenges: stats.challenges().collect(),
        connections: listeners.iter().copied().zip(stats.connections).collect(),
        received_bytes: stats.received_bytes,
        sent_bytes: stats.sent_bytes,
        unrouted: stats.unrouted,
        http1_own: stats.http1_own,
        http1_general: stats.http1_general,
        handshakes: stats.handshakes,
        http2_cuts: stats.http2_cuts.to_vec(),
        limits: stats.limits.to_vec(),
        rate_displaced: stats.rate_displaced,
        drain_forced_closes: stats.drain_forced_closes,
        upgrades: upgrades.counts().to_vec(),
        drains_active: drains.lock().unwrap_or_else(PoisonError::into_inner).n_active(),
    }
}
