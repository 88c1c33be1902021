//! What the admin endpoint reads. Everything is handed in, and nothing can be changed through it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::access::Access;
use crate::catalog::{History, Live};
use crate::pool::Histogram;

pub struct Sources {
    pub live: Arc<Live>,
    pub history: Arc<History>,
    pub timings: Arc<RegistryTimings>,
    /// How long after they were due probes began.
    pub probe_lateness: Arc<Histogram>,
    /// Who is answered.
    pub access: Access,
    pub registry: Reading<RegistryReading>,
    pub proxy: Reading<ProxyReading>,
    /// Listeners that terminate TLS, by their place in the configuration.
    pub terminating: Vec<(usize, SocketAddr)>,
    /// Certificate files that could not be taken over, and why.
    pub certificate_files: Reading<Vec<(String, String)>>,
    /// `None`: certificates are not ordered here.
    pub acme: Reading<Option<AcmeReading>>,
    /// Turns true when the process has begun to end: from then on it is not ready.
    pub leaving: watch::Receiver<bool>,
    pub version: &'static str,
    /// The source's commit; empty when it was not known at build time.
    pub revision: &'static str,
    pub started_at: SystemTime,
}

/// Takes a reading at the moment it is asked for; it must not wait.
pub type Reading<T> = Box<dyn Fn() -> T + Send + Sync>;

/// How long changes take. Written where they are applied.
#[derive(Debug, Default)]
pub struct RegistryTimings {
    /// From taking events to the snapshot that holds them.
    pub apply: Histogram,
    /// From receiving a change to the snapshot that holds it.
    pub propagation: Histogram,
}

/// The registry at one moment.
#[derive(Debug, Clone, Default)]
pub struct RegistryReading {
    /// `etcd` or `embedded`.
    pub kind: &'static str,
    pub connected: bool,
    /// Whose answers we follow, or followed last.
    pub endpoint: Option<String>,
    /// Why there is no connection, in words.
    pub trouble: Option<String>,
    /// Where the declarations in force came from: `registry` or `snapshot`; `None` while there are none.
    pub source: Option<&'static str>,
    /// What is in force is not known to be current.
    pub stale: bool,
    pub n_keys: u64,
    pub last_event_age: Option<Duration>,
    pub last_answer_age: Option<Duration>,
    pub n_rejected: usize,
    /// The first of them, bounded by who takes the reading.
    pub rejected: Vec<RejectedRecord>,
    pub n_puts: u64,
    pub n_deletes: u64,
    pub n_warnings: u64,
    pub n_drifts: u64,
    /// Addresses that the registry may not name, by where they came from: `record` or `name`.
    pub addresses_refused: Vec<(&'static str, u64)>,
    /// By reason.
    pub relists: Vec<(&'static str, u64)>,
    /// What else is followed. All above but `endpoint` and `source` takes these in.
    pub sources: Vec<SourceReading>,
}

/// Keys of other programs at one moment; the fields as above.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct SourceReading {
    /// Their pattern, as configured.
    pub keys: String,
    pub connected: bool,
    pub trouble: Option<String>,
    pub source: Option<&'static str>,
    pub stale: bool,
    pub n_keys: u64,
    pub n_rejected: usize,
}

/// A record whose present value cannot be used.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RejectedRecord {
    pub key: String,
    pub revision: u64,
    pub reason: String,
    /// The revision whose value stays in force.
    pub keeping: Option<u64>,
}

/// Who orders certificates.
#[derive(Debug, Clone, Copy)]
pub struct AcmeReading {
    /// This proxy does, now.
    pub is_renewer: bool,
    /// Orders that it placed, by result.
    pub orders: [(&'static str, u64); 2],
}

/// What the proxy counts by itself, at one moment.
#[derive(Debug, Clone, Default)]
pub struct ProxyReading {
    /// Open client connections by listener.
    pub connections: Vec<(SocketAddr, u64)>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Requests that met no route, by class of status as in `RouteStats`.
    pub unrouted: [u64; 6],
    /// HTTP/1 requests done by our own engine, and by the general one.
    pub http1_own: u64,
    pub http1_general: u64,
    /// By version and result.
    pub handshakes: Vec<(&'static str, &'static str, u64)>,
    /// Challenges of ACME directories that were answered, by kind.
    pub challenges: Vec<(&'static str, u64)>,
    /// Headers of the PROXY protocol, by what came of them.
    pub proxy_headers: Vec<(&'static str, u64)>,
    /// Connections and streams of HTTP/2 that were cut, by cause.
    pub http2_cuts: Vec<(&'static str, u64)>,
    /// How often each limit of what clients may do has acted.
    pub limits: Vec<(&'static str, u64)>,
    /// Clients that rate limits forgot before their time.
    pub rate_displaced: u64,
    pub drains_active: u64,
    /// Connections to instances that were cut because the time of a drain was over.
    pub drain_forced_closes: u64,
    /// Upgrades of the program by result.
    pub upgrades: Vec<(&'static str, u64)>,
}
