//! A point of this process's time that fits into an atomic.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Milliseconds since the first moment anybody asked about; never 0 but for `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

impl Moment {
    /// Before every other.
    pub const NEVER: Self = Self(0);

    pub fn of(instant: Instant) -> Self {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        let since = instant.saturating_duration_since(*FIRST.get_or_init(|| instant));
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1) + 1)
    }

    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long ago `earlier` was; nothing if it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }
}
