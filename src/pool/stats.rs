//! Counts of a service, as atomics that the request path adds to and the admin endpoint reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::latency::Latency;
use super::outlier::EjectionCause;
use super::{Moment, Teller, Turnstile, Window};
use crate::model::ProbeResult;

/// What was counted on one service; it outlives snapshots as long as the service exists.
#[derive(Debug, Default)]
pub struct ServiceStats {
    /// Whole requests, as the client saw them.
    pub requests: Histogram,
    /// Attempts, from choosing the instance to the head of its response.
    pub attempts: Histogram,
    /// Probes, and how each ended.
    pub probe_times: Histogram,
    /// Times an instance was held down because it turned too often.
    pub probe_holds: AtomicU64,
    pub(super) probes: [AtomicU64; ProbeResult::ALL.len()],
    retries: [AtomicU64; RETRY_CAUSES.len()],
    /// Requests answered 503 because no instance could be picked.
    pub refused: AtomicU64,
    /// What instances are expected to take, on average of their answers.
    pub(super) latency: Latency,
    /// Steps of `round_robin`, and the order in which instances were picked.
    pub(super) turn: AtomicU64,
    pub(super) ejections: [AtomicU64; EjectionCause::ALL.len()],
    /// Instances that stayed because too many were out already.
    pub ejections_skipped: AtomicU64,
    /// Times an instance was found far slower than the others.
    pub latency_outliers: AtomicU64,
    /// When that was looked at last.
    latency_judged_at: AtomicU64,
    /// Retries that the budget denied.
    pub retries_denied: AtomicU64,
    pub turnstile: Turnstile,
    /// Attempts of late, and how many of them failed.
    pub(super) recent: Window,
    /// Requests of late, and how many retries they had.
    pub(super) budget: Window,
    /// Moves with everything that may change who is picked.
    changes: AtomicU64,
    /// Where this process runs.
    pub(super) zone: Option<Arc<str>>,
    /// When a probe first found one of the instances up.
    proven_at: AtomicU64,
    /// The last view was one of panic.
    panic: AtomicBool,
    /// Held while an ejection is decided.
    pub(super) ejecting: Mutex<()>,
    pub(super) teller: Teller,
}

/// Why there was a further attempt, as the metric's label says it.
pub const RETRY_CAUSES: [&str; 4] = ["connect_failed", "connect_timeout", "reset", "status"];

impl ServiceStats {
    pub fn new(teller: Teller) -> Self {
        Self { teller, ..Self::default() }
    }

    pub fn in_zone(self, zone: Option<Arc<str>>) -> Self {
        Self { zone, ..self }
    }

    /// `cause` is an index into `RETRY_CAUSES`.
    pub fn count_retry(&self, cause: usize) {
        if let Some(counter) = self.retries.get(cause) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn ejections(&self) -> impl Iterator<Item = (EjectionCause, u64)> {
        EjectionCause::ALL.into_iter().map(|cause| (cause, self.ejections[cause as usize].load(Ordering::Relaxed)))
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// After the change, so that whoever sees the new count sees the change too.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Notes whether there is panic, and says whether there was.
    pub(super) fn panics(&self, panic: bool) -> bool {
        self.panic.swap(panic, Ordering::Relaxed)
    }

    /// Whether it is time to compare the instances' latencies; if so, the next time is that much later.
    pub(super) fn latency_is_due(&self, now: Moment, every: Duration) -> bool {
        let is_due = now.since(Moment::from_millis(self.latency_judged_at.load(Ordering::Relaxed))) >= every;
        if is_due {
            self.latency_judged_at.store(now.as_millis(), Ordering::Relaxed);
        }
        is_due
    }

    pub(super) fn proven(&self, now: Moment) {
        let _ = self.proven_at.compare_exchange(0, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn proven_before(&self, born: Moment) -> bool {
        let at = self.proven_at.load(Ordering::Relaxed);
        at != 0 && at < born.as_millis()
    }

    pub fn probes(&self) -> impl Iterator<Item = (ProbeResult, u64)> {
        ProbeResult::ALL.into_iter().map(|result| (result, self.probes[result as usize].load(Ordering::Relaxed)))
    }

    pub fn retries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RETRY_CAUSES.iter().zip(&self.retries).map(|(cause, n)| (*cause, n.load(Ordering::Relaxed)))
    }
}

/// Durations in buckets that double from 250 µs to 65.5 s.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS + 1],
    sum_us: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramReading {
    /// Upper bound in microseconds and count, not cumulative; the last bound is `u64::MAX`.
    pub buckets: Vec<(u64, u64)>,
    pub sum_us: u64,
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = match us.div_ceil(FIRST_BOUND_US) {
            0 | 1 => 0,
            n => (u64::BITS - (n - 1).leading_zeros()) as usize,
        };
        self.buckets[bucket.min(BUCKETS)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|n| n.load(Ordering::Relaxed) == 0)
    }

    pub fn read(&self) -> HistogramReading {
        let bound = |at: usize| if at < BUCKETS { FIRST_BOUND_US << at } else { u64::MAX };
        let buckets = self.buckets.iter().enumerate().map(|(at, n)| (bound(at), n.load(Ordering::Relaxed))).collect();
        HistogramReading { buckets, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

impl HistogramReading {
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }

    /// The duration below which the given share of the recorded ones lies, interpolated within its bucket.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = share * self.count() as f64;
        let (mut below, mut lower) = (0.0, 0);
        for &(bound, n) in self.buckets.iter().filter(|(_, n)| *n > 0 || rank == 0.0) {
            let upper = if bound == u64::MAX { FIRST_BOUND_US << BUCKETS } else { bound };
            lower = lower.max(if upper == FIRST_BOUND_US { 0 } else { upper / 2 });
            if below + n as f64 >= rank {
                let within = if n == 0 { 0.0 } else { (rank - below) / n as f64 };
                return (self.count() > 0).then(|| Duration::from_micros(lower + ((upper - lower) as f64 * within) as u64));
            }
            below += n as f64;
        }
        None
    }
}

const FIRST_BOUND_US: u64 = 250;
const BUCKETS: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_at_or_below_its_bound() {
        for (us, bound) in [
            (0, 250),
            (250, 250),
            (251, 500),
            (500, 500),
            (501, 1000),
            (1000, 1000),
            (1001, 2000),
            (65_536_000, 65_536_000),
            (70_000_000, u64::MAX),
        ] {
            let histogram = Histogram::default();
            histogram.record(Duration::from_micros(us));
            let hit = histogram.read().buckets.into_iter().find(|(_, n)| *n == 1).unwrap();
            assert_eq!(hit.0, bound, "{us} µs");
        }
    }

    #[test]
    fn quantiles_lie_within_the_right_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), None);
        (0..90).for_each(|_| histogram.record(Duration::from_micros(900)));
        (0..10).for_each(|_| histogram.record(Duration::from_millis(100)));
        let reading = histogram.read();
        let p50 = reading.quantile(0.5).unwrap();
        let p99 = reading.quantile(0.99).unwrap();
        assert!((500..=1000).contains(&p50.as_micros()), "{p50:?}");
        assert!((64..=128).contains(&p99.as_millis()), "{p99:?}");
        assert_eq!((reading.count(), reading.sum_us), (100, 90 * 900 + 10 * 100_000));
    }
}
