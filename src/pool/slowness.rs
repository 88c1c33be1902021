//! How long one instance's answers took in the last ten seconds: finely enough to compare instances, without a lock.

use std::array;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Moment;

/// Kept for the instances of services that weigh slow ones less, and for no others.
#[derive(Debug)]
pub struct Slowness {
    /// By when and by how long. Each: the step of time (24 bits), and how many there were in it (40 bits).
    counts: [[AtomicU64; BUCKETS]; STEPS as usize],
    /// Since when it is taken for slow; `NEVER` while it is not.
    since: AtomicU64,
    /// The medians by which it was found slow last, its own and that of the others.
    own_ms: AtomicU32,
    others_ms: AtomicU32,
}

/// What was measured of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recent {
    pub n: u64,
    /// Off by a quarter at most.
    pub median: Duration,
}

impl Default for Slowness {
    fn default() -> Self {
        let none = |_| array::from_fn(|_| AtomicU64::new(0));
        Self {
            counts: array::from_fn(none),
            since: AtomicU64::new(Moment::NEVER.as_millis()),
            own_ms: AtomicU32::new(0),
            others_ms: AtomicU32::new(0),
        }
    }
}

impl Slowness {
    pub fn record(&self, took: Duration, now: Moment) {
        let step = step_of(now);
        let count = &self.counts[(step % STEPS) as usize][bucket_of(took)];
        // What was counted in a step that is long past starts over.
        let _ = count.fetch_update(Relaxed, Relaxed, |was| {
            let is_current = was >> COUNT_BITS == step & STEP_MASK;
            Some(if is_current { was + 1 } else { (step & STEP_MASK) << COUNT_BITS | 1 })
        });
    }

    pub fn recent(&self, now: Moment) -> Recent {
        let (step, mut sums) = (step_of(now), [0; BUCKETS]);
        for counts in &self.counts {
            for (sum, count) in sums.iter_mut().zip(counts) {
                let count = count.load(Relaxed);
                let age = step.wrapping_sub(count >> COUNT_BITS) & STEP_MASK;
                *sum += if age < STEPS { count & COUNT_MASK } else { 0 };
            }
        }
        let n: u64 = sums.iter().sum();
        Recent { n, median: median(&sums, n) }
    }

    pub fn since(&self) -> Option<Moment> {
        Some(Moment::from_millis(self.since.load(Relaxed))).filter(|since| *since != Moment::NEVER)
    }

    /// Takes in whether it is slow, and says whether that is news.
    pub fn settle(&self, is_slow: bool, now: Moment) -> bool {
        let was_slow = self.since().is_some();
        if was_slow != is_slow {
            self.since.store(if is_slow { now } else { Moment::NEVER }.as_millis(), Relaxed);
        }
        was_slow != is_slow
    }

    /// Its own median, and that of the others.
    pub fn compare(&self, own: Duration, others: Duration) {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        self.own_ms.store(ms(own), Relaxed);
        self.others_ms.store(ms(others), Relaxed);
    }

    /// As an operator reads it.
    pub fn words(&self) -> String {
        let (own, others) = (self.own_ms.load(Relaxed), self.others_ms.load(Relaxed));
        format!("slow: half of its answers take {own} ms or longer, the others' {others} ms")
    }
}

fn step_of(now: Moment) -> u64 {
    now.as_secs() / STEP_SECONDS
}

/// Four to each doubling.
fn bucket_of(took: Duration) -> usize {
    let units = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / UNIT_US;
    let doublings = units.checked_ilog2().unwrap_or_default().saturating_sub(2);
    (doublings as usize * 4 + (units >> doublings) as usize).min(BUCKETS - 1)
}

fn lower_bound_us(bucket: usize) -> u64 {
    let units = if bucket < 4 { bucket } else { (4 + bucket % 4) << (bucket / 4 - 1) };
    units as u64 * UNIT_US
}

/// Interpolated within its bucket. Nothing of nothing.
fn median(counts: &[u64; BUCKETS], n: u64) -> Duration {
    let (rank, mut below) = (n.div_ceil(2), 0);
    for (bucket, here) in counts.iter().enumerate().filter(|(_, here)| **here > 0) {
        if below + here >= rank {
            let (lower, upper) = (lower_bound_us(bucket), lower_bound_us(bucket + 1));
            let within = ((rank - below) as f64 - 0.5) / *here as f64;
            return Duration::from_micros(lower + ((upper - lower) as f64 * within) as u64);
        }
        below += here;
    }
    Duration::ZERO
}

/// Together the ten seconds over which everything else is counted.
const STEPS: u64 = 5;
const STEP_SECONDS: u64 = 2;
const STEP_MASK: u64 = (1 << 24) - 1;
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Answers that take less than four of these are all very fast.
const UNIT_US: u64 = 64;
/// The last one begins at 58 s and has no end.
const BUCKETS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(1_000_000 + ms)
    }

    #[test]
    fn what_is_older_than_ten_seconds_no_longer_counts() {
        let slowness = Slowness::default();
        (0..60).for_each(|_| slowness.record(Duration::from_millis(800), at(0)));
        (0..50).for_each(|_| slowness.record(Duration::from_millis(20), at(5_000)));
        let found = |ms| (slowness.recent(at(ms)).n, slowness.recent(at(ms)).median.as_millis());
        assert!(matches!(found(5_000), (110, 700..900)), "{:?}", found(5_000));
        assert!(matches!(found(10_000), (50, 18..23)), "{:?}", found(10_000));
        assert_eq!(found(20_000), (0, 0));
        slowness.record(Duration::from_millis(800), at(60_000));
        assert!(matches!(found(60_000), (1, 700..900)), "{:?}", found(60_000));
    }

    #[test]
    fn it_is_slow_from_one_word_to_the_next() {
        let slowness = Slowness::default();
        assert!(!slowness.settle(false, at(1)) && slowness.settle(true, at(2)) && !slowness.settle(true, at(3)));
        assert_eq!(slowness.since(), Some(at(2)));
        assert!(slowness.settle(false, at(4)) && slowness.since().is_none());
    }

    proptest! {
        /// Of whatever came: as many as came, and the middle one as exactly as was promised.
        #[test]
        fn the_median_is_off_by_a_quarter_at_most(mut took_us in proptest::collection::vec(256..50_000_000u64, 1..200)) {
            let slowness = Slowness::default();
            took_us.iter().for_each(|us| slowness.record(Duration::from_micros(*us), at(0)));
            took_us.sort_unstable();
            let middle = took_us[took_us.len().div_ceil(2) - 1] as f64;
            let found = slowness.recent(at(1_000));
            prop_assert_eq!(found.n, took_us.len() as u64);
            let median = found.median.as_micros() as f64;
            // A bucket ends a quarter above where it begins.
            prop_assert!((median / middle - 1.0).abs() <= 0.25, "{median} for {middle}");
        }

        #[test]
        fn every_duration_lies_in_its_bucket(us in 0..u64::MAX) {
            let bucket = bucket_of(Duration::from_micros(us));
            prop_assert!(lower_bound_us(bucket) <= us);
            prop_assert!(bucket == BUCKETS - 1 || us < lower_bound_us(bucket + 1));
        }
    }
}
