//! How long answers take of late, as one atomic that every worker writes and every pick may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Moment;

/// A mean that forgets: what is ten seconds old counts 1/e. Above: when it was moved last, in milliseconds that wrap after
/// 49 days; below: microseconds as the bits of an `f32`. 0: nothing has been measured.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// Up at once, down slowly: the trouble of an instance is seen with its first late answer. What it is then, in
    /// microseconds.
    pub fn peak(&self, took: Duration, now: Moment) -> f32 {
        // Never the 0 that stands for nothing.
        let took_us = (took.as_secs_f32() * 1e6).max(1.0);
        self.update(now, |before, kept| match before {
            Some(us) if us > took_us => took_us + (us - took_us) * kept,
            _ => took_us,
        })
    }

    /// Up and down alike, after what instances came to. Of many in one millisecond the first counts.
    pub fn follow(&self, us: f32, now: Moment) {
        self.update(now, |before, kept| before.map_or(us, |before| us + (before - us) * kept));
    }

    /// Microseconds, and when that was.
    pub fn read(&self) -> Option<(f32, LastMoved)> {
        let value = self.0.load(Relaxed);
        (value != 0).then(|| (f32::from_bits(value as u32), LastMoved((value >> 32) as u32)))
    }

    /// Microseconds as they may be expected now: what was measured long ago says less and less, the `mean` more and more.
    pub fn expected_us(&self, mean: f32, now: Moment) -> f32 {
        match self.read() {
            None => mean,
            Some((us, moved)) => mean + (us - mean) * moved.kept(now),
        }
    }

    fn update(&self, now: Moment, next: impl Fn(Option<f32>, f32) -> f32) -> f32 {
        let mut us = 0.0;
        let _ = self.0.fetch_update(Relaxed, Relaxed, |value| {
            let (before, moved) = (f32::from_bits(value as u32), LastMoved((value >> 32) as u32));
            us = next((value != 0).then_some(before), moved.kept(now));
            Some(u64::from(now.as_millis() as u32) << 32 | u64::from(us.to_bits()))
        });
        us
    }
}

/// The low bits of a moment.
#[derive(Debug, Clone, Copy)]
pub struct LastMoved(u32);

impl LastMoved {
    /// The part of what held then that still counts.
    fn kept(self, now: Moment) -> f32 {
        let ago_ms = (now.as_millis() as u32).wrapping_sub(self.0);
        if ago_ms == 0 { 1.0 } else { (-(ago_ms as f32) / DECAY_MS).exp() }
    }
}

const DECAY_MS: f32 = 10_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(1_000_000 + ms)
    }

    /// Answers as (when, took), in milliseconds; what is expected a moment later, rounded to milliseconds.
    fn check(answers: &[(u64, u64)], mean: u64, later: u64, expected: u64) {
        let latency = Latency::default();
        for (when, took) in answers {
            latency.peak(Duration::from_millis(*took), at(*when));
        }
        let found = (latency.expected_us(mean as f32 * 1e3, at(later)) / 1e3).round() as u64;
        assert_eq!(found, expected, "{answers:?} of a mean of {mean}, at {later}");
    }

    #[test]
    fn late_answers_count_at_once_and_are_forgotten_in_seconds() {
        check(&[], 20, 0, 20);
        check(&[(0, 10)], 20, 0, 10);
        check(&[(0, 10), (1, 500)], 20, 1, 500);
        check(&[(0, 500), (1, 10)], 20, 1, 500);
        check(&[(0, 500), (10_000, 10)], 20, 10_000, 190);
        check(&[(0, 500), (60_000, 10)], 20, 60_000, 11);
    }

    #[test]
    fn who_is_not_asked_is_expected_to_be_like_the_others_again() {
        check(&[(0, 1000)], 20, 10_000, 381);
        check(&[(0, 1000)], 20, 100_000, 20);
        check(&[(0, 1)], 20, 100_000, 20);
    }

    #[test]
    fn the_moment_may_wrap() {
        let latency = Latency::default();
        let (before, after) = (Moment::from_millis((1 << 32) - 5_000), Moment::from_millis((1 << 32) + 5_000));
        latency.peak(Duration::from_millis(500), before);
        latency.peak(Duration::from_millis(10), after);
        assert_eq!((latency.expected_us(0.0, after) / 1e3).round(), 190.0);
    }
}
