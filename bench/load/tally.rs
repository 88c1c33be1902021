//! What became of requests: counts, failures by kind, and latencies in buckets of 1.6 %.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    Connect,
    Reset,
    /// Closed before or amid the answer.
    Closed,
    Timeout,
    Malformed,
    /// Answered, but not with 2xx.
    Status(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("not connected"),
            Self::Reset => f.write_str("reset"),
            Self::Closed => f.write_str("closed early"),
            Self::Timeout => f.write_str("timed out"),
            Self::Malformed => f.write_str("malformed answer"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

impl std::error::Error for Failure {}

pub struct Tally {
    buckets: Vec<u64>,
    failures: BTreeMap<Failure, u64>,
    slowest: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        Self { buckets: vec![0; N_BUCKETS], failures: BTreeMap::new(), slowest: Duration::ZERO }
    }
}

impl Tally {
    pub fn answered(&mut self, latency: Duration) {
        self.buckets[bucket(latency.as_nanos() as u64)] += 1;
        self.slowest = self.slowest.max(latency);
    }

    pub fn failed(&mut self, failure: Failure) {
        *self.failures.entry(failure).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (all, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *all += more;
        }
        for (failure, n) in &other.failures {
            *self.failures.entry(*failure).or_default() += n;
        }
        self.slowest = self.slowest.max(other.slowest);
    }

    pub fn n_answered(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn n_failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// How often each kind of failure came.
    pub fn failures(&self) -> impl Iterator<Item = (Failure, u64)> {
        self.failures.iter().map(|(failure, n)| (*failure, *n))
    }

    pub fn slowest(&self) -> Duration {
        self.slowest
    }

    /// The latency that `share` of the answered requests did not exceed.
    pub fn latency(&self, share: f64) -> Duration {
        let wanted = (self.n_answered() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.buckets.iter().position(|n| {
            seen += n;
            seen >= wanted.max(1)
        });
        found.map_or(Duration::ZERO, |bucket| Duration::from_nanos(lowest_in(bucket + 1)).min(self.slowest))
    }

    pub fn report(&self, took: Duration) -> String {
        let n = self.n_answered() + self.n_failed();
        let mut text = format!(
            "{n} requests in {:.1} s ({:.0}/s), {} failed",
            took.as_secs_f64(),
            n as f64 / took.as_secs_f64(),
            self.n_failed()
        );
        for (failure, n) in &self.failures {
            text += &format!("\n  {n} × {failure}");
        }
        let [p50, p99, max] = [self.latency(0.5), self.latency(0.99), self.slowest];
        text + &format!("\nlatency p50 {p50:.2?}, p99 {p99:.2?}, max {max:.2?}")
    }
}

/// Of few values, exactly: the one that `share` of them do not exceed.
pub fn percentile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Buckets are exact up to 128 ns, then 64 to each power of two.
fn bucket(nanos: u64) -> usize {
    let exponent = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEPS_BITS + 1);
    let bucket = ((exponent as usize) << STEPS_BITS) + (nanos >> exponent) as usize;
    bucket.min(N_BUCKETS - 1)
}

/// The least that falls into a bucket.
fn lowest_in(bucket: usize) -> u64 {
    let exponent = (bucket >> STEPS_BITS).saturating_sub(1);
    ((bucket - (exponent << STEPS_BITS)) as u64) << exponent
}

const STEPS_BITS: u32 = 6;
/// Up to 2⁴⁰ ns, a quarter of an hour: far beyond the time a request is given. What is slower counts as that.
const N_BUCKETS: usize = (41 - STEPS_BITS as usize) << STEPS_BITS;
