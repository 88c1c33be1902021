//! When to swap: the first change at once, a storm in few large swaps.

use std::time::{Duration, Instant};

/// Swaps as long as events come slower than `RATE` a second (with a burst of as many); beyond that, events are
/// gathered until none came for `QUIET`, at most for `WAIT_MAX`.
#[derive(Debug, Default)]
pub struct Pace {
    spent: f64,
    refilled: Option<Instant>,
}

impl Pace {
    /// How long to wait for one more event; `None`: swap now. `first` is when the first of the `n` waiting ones came.
    pub fn waits(&mut self, now: Instant, first: Instant, n: usize) -> Option<Duration> {
        let since = self.refilled.map_or(0.0, |then| now.saturating_duration_since(then).as_secs_f64());
        let refilled = (self.spent - since * RATE).max(0.0);
        let left = WAIT_MAX.checked_sub(now.saturating_duration_since(first)).filter(|left| !left.is_zero());
        if refilled < RATE {
            // One swap costs one, however many events it takes in.
            (self.spent, self.refilled) = (refilled + n.min(1) as f64, Some(now));
            return None;
        }
        left.map(|left| left.min(QUIET)).or_else(|| {
            (self.spent, self.refilled) = (refilled, Some(now));
            None
        })
    }
}

const RATE: f64 = 100.0;
const QUIET: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Events come every `gap_ms`; answers how many swaps there were in `total_ms`.
    fn swaps(gap_ms: u64, total_ms: u64) -> usize {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut pace, mut swaps, mut now) = (Pace::default(), 0, 0);
        while now < total_ms {
            let (first, mut n) = (now, 1);
            while let Some(quiet) = pace.waits(at(now), at(first), n) {
                if Duration::from_millis(gap_ms) > quiet {
                    now += quiet.as_millis() as u64;
                    break;
                }
                now += gap_ms;
                n += 1;
            }
            swaps += 1;
            now = (now + 1).next_multiple_of(gap_ms);
        }
        swaps
    }

    #[test]
    fn fifty_changes_a_second_are_each_applied_at_once() {
        assert_eq!(swaps(20, 10_000), 500);
    }

    #[test]
    fn a_storm_becomes_few_swaps() {
        let n = swaps(1, 10_000);
        assert!((100..=1200).contains(&n), "{n} swaps for 10,000 events in 10 s");
    }
}
