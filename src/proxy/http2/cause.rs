//! Why we cut what a client of HTTP/2 would go on with.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was too much, or too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Streams that the client opened and took back (CVE-2023-44487).
    Resets,
    /// PING, and answers to pings that nobody sent (CVE-2019-9512).
    Pings,
    /// SETTINGS (CVE-2019-9515).
    Settings,
    WindowUpdates,
    /// PRIORITY, PRIORITY_UPDATE and frames of unknown types (CVE-2019-9513).
    Priorities,
    /// DATA that holds nothing and ends nothing (CVE-2019-9518).
    EmptyData,
    /// Streams that we had to end for what the client sent on them (CVE-2025-8671).
    Faults,
    /// Heads that never became a request: larger than allowed, malformed, of more streams than allowed.
    Heads,
    /// A head in too many pieces (CVE-2024-27316).
    Continuations,
    /// The codec had enough: streams taken back faster than they could be begun, or DATA in tiny pieces.
    Codec,
    /// A head that is not whole after `head_timeout`.
    SlowHead,
    /// The client takes nothing of what we have for it: a stream, or the connection.
    SlowRead,
}

impl Cause {
    pub const ALL: [Self; 12] = [
        Self::Resets,
        Self::Pings,
        Self::Settings,
        Self::WindowUpdates,
        Self::Priorities,
        Self::EmptyData,
        Self::Faults,
        Self::Heads,
        Self::Continuations,
        Self::Codec,
        Self::SlowHead,
        Self::SlowRead,
    ];

    /// As metrics and `docs/metrics.md` call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::WindowUpdates => "window_updates",
            Self::Priorities => "priorities",
            Self::EmptyData => "empty_data",
            Self::Continuations => "continuations",
            Self::Faults => "faults",
            Self::Heads => "heads",
            Self::Codec => "codec",
            Self::SlowHead => "slow_head",
            Self::SlowRead => "slow_read",
        }
    }
}

/// Connections, and for [`Cause::SlowRead`] streams as well, that were cut.
#[derive(Debug, Default)]
pub struct Cuts([AtomicU64; Cause::ALL.len()]);

impl Cuts {
    pub fn count(&self, cause: Cause) {
        self.0[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize].load(Ordering::Relaxed)
    }
}
