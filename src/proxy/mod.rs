//! FLOOR 5. The proxy: client connections in, instances' answers out.
//!
//! What decides stands here and knows no engine: `head` checks a request, `route` finds its service, `rate` says whether that
//! takes it now, `attempt` picks instances and says when to retry, `forward` rewrites, `edit` does what the route wants
//! besides, `reply` turns errors into HTTP, `record` gathers the facts that counters and `access_log` read. Two engines ask
//! them:
//!
//! 1. `worker` takes connections off its sockets; `introduction` hears who their client is where a proxy says so; `handshake`
//!    terminates TLS on those of a listener that does (`challenge` is there for ACME directories); `serve` tells HTTP/2 from HTTP/1 and picks the engine for each request.
//! 2. `http1` is our own, for HTTP/1.1 requests to instances that speak the same. `pingora` does everything else;
//!    `http2` watches what its clients ask of it.
//! 3. `downstream` and `upstream` are the connections that both of them use.
//!
//! Invariants:
//! - A request loads the snapshot once and keeps the service it found; its retries see the same pool.
//! - Every attempt is counted in flight by a value that is dropped with it, on every path.
//! - Every wait has an end: heads, bodies, connects, answers, idle connections, drains.
//! - Deliberately absent: etcd, PEM, configuration files, Prometheus.

pub mod access_log;
mod addresses;
mod arrival;
mod attempt;
mod challenge;
mod downstream;
mod edit;
mod explain;
mod forward;
mod handshake;
mod head;
mod http1;
mod http2;
mod introduction;
mod key;
#[cfg(any(test, fuzzing))]
pub mod laws;
mod limits;
mod listening;
mod pingora;
mod queue;
mod rate;
mod record;
mod reply;
mod route;
mod serve;
mod sockets;
mod stats;
mod sticky;
#[cfg(test)]
mod tests;
mod upstream;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Version};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tracing::debug;

pub use access_log::AccessLog;
use addresses::{Addresses, Counted, TooMany};
use arrival::{Arrival, Trusted};
use downstream::{Connection, Link};
use limits::Limit;
use listening::Listening;
use rate::Rates;
use record::RequestRecord;
use reply::Refusal;
pub use sockets::{BindError, Sockets, open};
use stats::WorkerStats;
pub use stats::{ProxyStats, Pulse};
use upstream::Upstreams;
use worker::Worker;

use crate::catalog::Live;
use crate::config::{ClientLimits, Listener, ProxyConfig};
use crate::trust::Trusts;

/// The proxy of this process: hand it sockets, and tell it which instances have left.
#[derive(Clone)]
pub struct Proxy {
    workers: Vec<Worker>,
    parting: Arc<watch::Sender<bool>>,
}

/// What every worker reads.
struct Shared {
    live: Arc<Live>,
    limits: ClientLimits,
    trusted: Trusted,
    addresses: Arc<Addresses>,
    rates: Rates,
    access_log: Option<AccessLog>,
    /// Turns true when another process has the sockets: each answer is the last of its connection.
    parting: watch::Receiver<bool>,
}

impl Proxy {
    /// `listeners`: in the order of the sockets to come.
    pub fn new(
        live: Arc<Live>,
        trusts: &Arc<Trusts>,
        config: &ProxyConfig,
        access_log: Option<AccessLog>,
        listeners: &[Listener],
    ) -> Self {
        let (limits, trusted) = (config.limits.clone(), Trusted::new(&config.trusted_proxies).saying_forwarded(config.forwarded));
        let room = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let listening: Arc<[_]> =
            listeners.iter().enumerate().map(|(n, listener)| Arc::new(Listening::new(n, listener, &live))).collect();
        let addresses = Addresses::new(limits.connections_per_address);
        let rates = Rates::new(limits.rate_clients);
        let (parting, parts) = watch::channel(false);
        let shared = Arc::new(Shared { live, limits, trusted, addresses, rates, access_log, parting: parts });
        let worker = |_| Worker {
            shared: shared.clone(),
            upstreams: Arc::new(Upstreams::new(trusts.clone())),
            stats: Arc::new(WorkerStats::new(listeners.len())),
            listening: listening.clone(),
            room: room.clone(),
            drain: config.shutdown.drain,
        };
        Self { workers: (0..config.workers.max(1)).map(worker).collect(), parting: Arc::new(parting) }
    }

    /// Starts the workers. When `ending` turns true they stop accepting, close what is idle, finish what runs, and end.
    pub fn serve(&self, sockets: Sockets, ending: watch::Receiver<bool>) -> io::Result<Serving> {
        let start = |(number, (worker, sockets)): (usize, (&Worker, _))| worker.clone().start(number, sockets, ending.clone());
        let sockets = sockets.into_workers(self.workers.len())?;
        let workers = self.workers.iter().zip(sockets).enumerate().map(start);
        Ok(Serving { workers: workers.collect::<io::Result<_>>()? })
    }

    /// Another process accepts from now on. Nothing is accepted here any more, and each connection is told with its next answer
    /// that it was the last; none is closed for it.
    pub fn part(&self) {
        self.parting.send_replace(true);
    }

    /// Returns when no connection of a client is left.
    pub async fn deserted(&self) {
        let mut looks = 0;
        // One look is not enough: a worker may be about to count what it has just accepted.
        while looks < DESERTED_LOOKS {
            sleep(DESERTED_EVERY).await;
            looks = if self.stats().connections.iter().any(|n| *n > 0) { 0 } else { looks + 1 };
        }
    }

    /// Instances that take no new requests from now on: their idle connections close at once, running requests finish.
    pub fn evict(&self, generations: &[u64]) {
        if !generations.is_empty() {
            let now = Instant::now();
            self.workers.iter().for_each(|worker| worker.upstreams.evict(generations, now));
        }
    }

    /// Of each worker.
    pub fn pulses(&self) -> Vec<Pulse> {
        self.workers.iter().map(|worker| worker.stats.pulse()).collect()
    }

    pub fn stats(&self) -> ProxyStats {
        // Each of them has the same.
        let rate_displaced = self.workers.first().map_or(0, |worker| worker.shared.rates.displaced());
        ProxyStats { rate_displaced, ..ProxyStats::sum(self.workers.iter().map(|worker| &worker.stats)) }
    }
}

/// The workers at work.
#[derive(Debug)]
pub struct Serving {
    workers: Vec<worker::Running>,
}

impl Serving {
    /// Returns when the last worker has ended.
    pub async fn finished(self) {
        for worker in self.workers {
            worker.finished().await;
        }
    }
}

impl Shared {
    fn is_parting(&self) -> bool {
        *self.parting.borrow()
    }

    /// Counts a client's connection for as long as it is held. A trusted proxy speaks for many, and is not counted.
    fn count_client(&self, peer: SocketAddr, stats: &WorkerStats) -> Result<Option<Counted>, TooMany> {
        if self.trusted.holds(peer.ip()) {
            return Ok(None);
        }
        self.addresses.enter(peer.ip()).map(Some).inspect_err(|TooMany| {
            stats.limits.count(Limit::ConnectionsPerAddress);
            debug!(%peer, "Closed: the address has as many connections as it may");
        })
    }

    /// Answers what came in place of a request, or was not whole in time, and closes the connection. `took`: so far.
    async fn refuse(&self, connection: Connection, refusal: &Refusal, took: Duration) {
        let arrival = self.heard_of(connection.link(), (Version::HTTP_11, refusal.status()), refusal.reason(), took);
        connection.refuse(refusal, &arrival.request_id).await;
    }

    /// The line and the count of what never became a request. The client is told what is left of that by the same id.
    fn heard_of(&self, link: &Link, said: (Version, u16), reason: &str, took: Duration) -> Arrival {
        let arrival = Arrival::on(link, &HeaderMap::new(), &self.trusted, &mut fastrand::Rng::new());
        self.finish(&RequestRecord::of_no_request(&arrival, said, reason, took), &link.stats);
        arrival
    }

    fn finish(&self, record: &RequestRecord<'_>, stats: &WorkerStats) {
        record.count(stats);
        if let Some(log) = &self.access_log {
            log.write(record);
        }
    }
}

/// Whoever waits for the last client waits for seconds.
const DESERTED_EVERY: Duration = Duration::from_millis(100);
const DESERTED_LOOKS: u32 = 3;
