//! FLOOR 1. Whether one more request is within a rate, for any number of clients in memory of a fixed size.
//!
//! The algorithm is the generic cell rate algorithm (GCRA), a token bucket that needs one number for each client: when its
//! bucket will be full again. A request moves that by what one request costs, and is over the rate if it would come to lie
//! further ahead than a whole bucket takes to fill.
//!
//! Invariants:
//! - Nobody is refused who keeps to the rate. What can go wrong under contention, or when there are more clients than places,
//!   goes wrong in favour of the client: somebody who was forgotten begins with a full bucket.
//! - A question takes no lock and no memory, and looks at eight places however many clients there are.
//! - Deliberately absent: clocks, clients, routes. Whoever asks says what time it is, and names clients by 64 bits that
//!   nobody outside can foresee.

#[cfg(test)]
mod laws;
mod table;

use std::time::Duration;

pub use table::Table;

/// So many at once, and one more each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What one request costs, in nanoseconds of filling; at least 1.
    cost: u64,
    /// A whole bucket.
    depth: u64,
}

impl Rule {
    /// `requests` in each `per`; `burst` at once. The finest rate is one in a nanosecond, the deepest bucket 73 years.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(DEPTH_MAX);
        let cost = (per / u64::from(requests.max(1))).clamp(1, DEPTH_MAX);
        Self { cost, depth: cost.saturating_mul(u64::from(burst.max(1))).min(DEPTH_MAX) }
    }

    /// When a bucket that would be full at `full` will be, once a request was taken out of it at `now`; `Err` is how long to
    /// wait for one.
    fn take(self, full: u64, now: u64) -> Result<u64, Duration> {
        let after = full.max(now).saturating_add(self.cost);
        match after.saturating_sub(now.saturating_add(self.depth)) {
            0 => Ok(after),
            early => Err(Duration::from_nanos(early)),
        }
    }
}

/// Far from where adding one to a process's time overflows.
const DEPTH_MAX: u64 = u64::MAX / 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of requests at these milliseconds: `+`, or how long is left to wait.
    fn check(rule: Rule, requests: &[u64], expected: &[&str]) {
        let mut full = 0;
        let told = requests.iter().map(|ms| match rule.take(full, ms * 1_000_000) {
            Ok(after) => {
                full = after;
                "+".to_owned()
            }
            Err(wait) => format!("{wait:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_bucket_is_full_at_first_and_fills_at_the_rate() {
        let rule = Rule::new(10, Duration::from_secs(1), 3);
        check(rule, &[0, 0, 0, 0, 60, 100, 100], &["+", "+", "+", "100ms", "40ms", "+", "100ms"]);
        check(rule, &[0, 0, 0, 5000, 5000, 5000, 5000], &["+", "+", "+", "+", "+", "+", "100ms"]);
        check(Rule::new(1, Duration::from_secs(60), 1), &[0, 1, 59_999, 60_000], &["+", "59.999s", "1ms", "+"]);
    }

    #[test]
    fn extremes_stay_within_their_numbers() {
        let (most, long) = (u32::MAX, Duration::MAX);
        assert_eq!(Rule::new(0, Duration::ZERO, 0), Rule { cost: 1, depth: 1 });
        assert_eq!(Rule::new(1, long, most), Rule { cost: DEPTH_MAX, depth: DEPTH_MAX });
        assert!(Rule::new(1, long, most).take(u64::MAX, u64::MAX).is_ok(), "better one too many than a false refusal");
    }
}
