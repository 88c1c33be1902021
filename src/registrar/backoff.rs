//! How long to wait before the next try: longer each time, never the same for everybody.

use std::time::Duration;

use tokio::time::Instant;

/// 0.2 s, doubling up to 5 s, each with up to half of it left out at random.
#[derive(Debug, Default)]
pub struct Backoff {
    n_failed: u32,
}

impl Backoff {
    pub fn next(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.n_failed.min(DOUBLINGS_MAX)).min(LONGEST);
        self.n_failed = self.n_failed.saturating_add(1);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub fn reset(&mut self) {
        self.n_failed = 0;
    }
}

/// When the next repair may be made: the first at once, those that follow close behind one after another ever later,
/// so that two writers who disagree do not keep the registry busy.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
    wait: Duration,
    backoff: Backoff,
}

impl Pace {
    /// `None`: now.
    pub fn not_before(&self, now: Instant) -> Option<Instant> {
        self.last.map(|last| last + self.wait).filter(|at| now < *at)
    }

    pub fn repaired(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.duration_since(last) > CALM) {
            self.backoff.reset();
        }
        self.last = Some(now);
        self.wait = self.backoff.next();
    }
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// Enough to pass `LONGEST`, and far from overflowing.
const DOUBLINGS_MAX: u32 = 8;
/// So long without a repair, and whoever meddled has stopped.
const CALM: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds_and_start_again() {
        let mut backoff = Backoff::default();
        for full_ms in [200, 400, 800, 1600, 3200, 5000, 5000] {
            let full = Duration::from_millis(full_ms);
            let wait = backoff.next();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        (0..100).for_each(|_| assert!(backoff.next() <= LONGEST));
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn repairs_in_a_row_come_ever_later_until_it_is_calm() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.not_before(start), None);
        (0..8).for_each(|_| pace.repaired(start));
        let at = pace.not_before(start).expect("the ninth waits");
        assert!(at >= start + LONGEST / 2, "{:?}", at - start);
        let later = start + CALM * 2;
        assert_eq!(pace.not_before(later), None);
        pace.repaired(later);
        assert!(pace.not_before(later).expect("a moment") <= later + FIRST);
    }
}
