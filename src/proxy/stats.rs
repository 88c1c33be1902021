//! What the proxy counts by itself, beside what it records at routes, services and instances: one set per worker, so that
//! no two workers write to the same cache line; whoever reads adds them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::challenge::ChallengeStats;
use super::http2::{Cause, Cuts};
use super::introduction::{HeaderStats, Outcome};
use super::limits::{Limit, LimitStats};
use crate::model::ChallengeKind;
use crate::routing::RouteStats;

#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    /// Open connections by listener, in the order of the configuration.
    pub connections: Vec<AtomicU64>,
    pub received: AtomicU64,
    pub sent: AtomicU64,
    /// Requests that met no route.
    pub unrouted: RouteStats,
    pub http1: EngineStats,
    pub handshakes: HandshakeStats,
    /// Of ACME directories.
    pub challenges: ChallengeStats,
    /// PROXY headers.
    pub headers: HeaderStats,
    pub http2_cuts: Cuts,
    pub limits: LimitStats,
    drain_cuts: AtomicU64,
    pulse: AtomicU64,
}

/// How often a worker has come by what it does ten times a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse(u64);

impl Pulse {
    const RESTS: Self = Self(u64::MAX);

    /// Whether its worker has done something since this was seen, or has nothing to do any more.
    pub fn has_gone_on(self, now: Self) -> bool {
        now != self || now == Self::RESTS
    }
}

/// Which engine did the HTTP/1 requests of a worker.
#[derive(Debug, Default)]
pub struct EngineStats {
    own: AtomicU64,
    general: AtomicU64,
}

/// What came of handshakes.
#[derive(Debug, Default)]
pub struct HandshakeStats([[AtomicU64; HandshakeResult::ALL.len()]; HandshakeVersion::ALL.len()]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeVersion {
    /// It did not come so far.
    None,
    V1_2,
    V1_3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeResult {
    Full,
    Resumed,
    /// The deadline was over.
    Slow,
    /// The client left, or the connection broke.
    Closed,
    /// No version, cipher or protocol that both know.
    Incompatible,
    /// There is none for this client.
    NoCertificate,
    /// The client does not believe ours.
    Distrusted,
    /// The client's is missing, or nobody vouches for it.
    ClientCertificate,
    /// An ACME directory saw what it came for.
    Proved,
    /// Plain HTTP.
    NotTls,
    /// Against the rules of TLS.
    Invalid,
}

/// All workers at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyStats {
    /// In the order of the configured listeners.
    pub connections: Vec<u64>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Requests, and what came in place of them, refused before a route was known, as `RouteStats::by_class` counts them.
    pub unrouted: [u64; 6],
    /// HTTP/1 requests done by our own engine, and by the general one.
    pub http1_own: u64,
    pub http1_general: u64,
    /// By version and result.
    pub handshakes: Vec<(&'static str, &'static str, u64)>,
    /// Challenges of ACME directories that were answered, in the order of `ChallengeKind::ALL`.
    pub challenges: [u64; ChallengeKind::ALL.len()],
    /// PROXY headers, in the order of `Outcome::ALL`.
    pub headers: [u64; Outcome::ALL.len()],
    /// Connections and streams of HTTP/2 that were cut, by cause.
    pub http2_cuts: [(&'static str, u64); Cause::ALL.len()],
    /// How often each limit of what clients may do has acted.
    pub limits: [(&'static str, u64); Limit::ALL.len()],
    /// Clients that rate limits forgot before their time.
    pub rate_displaced: u64,
    /// Connections to instances that were cut because a drain was over.
    pub drain_forced_closes: u64,
}

impl WorkerStats {
    pub fn new(listeners: usize) -> Self {
        Self { connections: (0..listeners).map(|_| AtomicU64::new(0)).collect(), ..Self::default() }
    }

    /// The worker has come by.
    pub fn beat(&self) {
        self.pulse.fetch_add(1, Ordering::Relaxed);
    }

    /// The worker has ended, and need not come by any more.
    pub fn rest(&self) {
        self.pulse.store(Pulse::RESTS.0, Ordering::Relaxed);
    }

    pub fn pulse(&self) -> Pulse {
        Pulse(self.pulse.load(Ordering::Relaxed))
    }

    pub fn count_cut(&self, connections: usize) {
        self.drain_cuts.fetch_add(connections as u64, Ordering::Relaxed);
    }
}

impl ProxyStats {
    /// Answered challenges by kind.
    pub fn challenges(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ChallengeKind::ALL.into_iter().map(ChallengeKind::as_str).zip(self.challenges)
    }

    /// PROXY headers by what came of them.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::ALL.into_iter().map(Outcome::as_str).zip(self.headers)
    }
}

impl EngineStats {
    pub fn count_own(&self) {
        self.own.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_general(&self) {
        self.general.fetch_add(1, Ordering::Relaxed);
    }
}

impl HandshakeStats {
    pub fn count(&self, version: HandshakeVersion, result: HandshakeResult) {
        self.0[version as usize][result as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl HandshakeVersion {
    const ALL: [Self; 3] = [Self::None, Self::V1_2, Self::V1_3];

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }

    /// A handshake that succeeded had a version, and one that failed counts without.
    fn goes_with(self, result: HandshakeResult) -> bool {
        matches!(result, HandshakeResult::Full | HandshakeResult::Resumed) == (self != Self::None)
    }
}

impl HandshakeResult {
    const ALL: [Self; 11] = [
        Self::Full,
        Self::Resumed,
        Self::Slow,
        Self::Closed,
        Self::Incompatible,
        Self::NoCertificate,
        Self::Distrusted,
        Self::ClientCertificate,
        Self::Proved,
        Self::NotTls,
        Self::Invalid,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Slow => "slow",
            Self::Closed => "closed",
            Self::Incompatible => "incompatible",
            Self::NoCertificate => "no_certificate",
            Self::Distrusted => "distrusted",
            Self::ClientCertificate => "client_certificate",
            Self::Proved => "proved",
            Self::NotTls => "not_tls",
            Self::Invalid => "invalid",
        }
    }
}

impl ProxyStats {
    pub fn sum<'a>(workers: impl IntoIterator<Item = &'a Arc<WorkerStats>>) -> Self {
        let workers: Vec<_> = workers.into_iter().collect();
        let mut sum = Self {
            http2_cuts: Cause::ALL.map(|cause| (cause.as_str(), 0)),
            limits: Limit::ALL.map(|limit| (limit.as_str(), 0)),
            ..Self::default()
        };
        let add = |into: &mut u64, from: &AtomicU64| *into += from.load(Ordering::Relaxed);
        for version in HandshakeVersion::ALL {
            for result in HandshakeResult::ALL.into_iter().filter(|result| version.goes_with(*result)) {
                let of =
                    |worker: &&Arc<WorkerStats>| worker.handshakes.0[version as usize][result as usize].load(Ordering::Relaxed);
                sum.handshakes.push((version.as_str(), result.as_str(), workers.iter().map(of).sum()));
            }
        }
        for worker in workers {
            sum.connections.resize(worker.connections.len().max(sum.connections.len()), 0);
            sum.connections.iter_mut().zip(&worker.connections).for_each(|(a, b)| add(a, b));
            sum.unrouted.iter_mut().zip(worker.unrouted.by_class()).for_each(|(a, b)| *a += b);
            add(&mut sum.received_bytes, &worker.received);
            add(&mut sum.sent_bytes, &worker.sent);
            sum.challenges.iter_mut().zip(worker.challenges.all()).for_each(|(a, b)| *a += b);
            sum.headers.iter_mut().zip(worker.headers.all()).for_each(|(a, b)| *a += b);
            add(&mut sum.http1_own, &worker.http1.own);
            add(&mut sum.http1_general, &worker.http1.general);
            sum.http2_cuts.iter_mut().zip(Cause::ALL).for_each(|((_, n), cause)| *n += worker.http2_cuts.of(cause));
            sum.limits.iter_mut().zip(Limit::ALL).for_each(|((_, n), limit)| *n += worker.limits.of(limit));
            add(&mut sum.drain_forced_closes, &worker.drain_cuts);
        }
        sum
    }
}

/// Counts one open connection until it is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    stats: Arc<WorkerStats>,
    listener: usize,
}

impl OpenConnection {
    pub fn begin(stats: Arc<WorkerStats>, listener: usize) -> Self {
        if let Some(gauge) = stats.connections.get(listener) {
            gauge.fetch_add(1, Ordering::Relaxed);
        }
        Self { stats, listener }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(gauge) = self.stats.connections.get(self.listener) {
            gauge.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_goes_on_that_beats_or_rests() {
        let stats = WorkerStats::new(1);
        let first = stats.pulse();
        assert!(!first.has_gone_on(stats.pulse()));
        stats.beat();
        let second = stats.pulse();
        assert!(first.has_gone_on(second) && !second.has_gone_on(second));
        stats.rest();
        assert!(second.has_gone_on(stats.pulse()) && stats.pulse().has_gone_on(stats.pulse()));
    }
}
