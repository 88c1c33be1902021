//! How an active probe ended.

/// One probe of one instance, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeResult {
    Pass,
    /// 503 with `x-pointsman-drain: 1`: alive, and asking for no new requests.
    Draining,
    /// An answer over HTTP whose status is not among those that pass.
    Status,
    /// A passing status, but not the body that was asked for.
    Body,
    /// gRPC's health service says anything but `SERVING`.
    NotServing,
    /// Nobody listens, or no way there.
    ConnectFailed,
    ConnectTimeout,
    /// Connected, but no TLS came about.
    Tls,
    /// Connected, and no whole answer in time.
    Timeout,
    /// The connection broke, or what came is not the protocol.
    Broken,
}

impl ProbeResult {
    pub const ALL: [Self; 10] = [
        Self::Pass,
        Self::Draining,
        Self::Status,
        Self::Body,
        Self::NotServing,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Timeout,
        Self::Broken,
    ];

    /// As the metric's label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Draining => "draining",
            Self::Status => "status",
            Self::Body => "body",
            Self::NotServing => "not_serving",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }

    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Pass | Self::Draining)
    }

    /// It could be connected to, whatever came of it.
    pub fn is_reachable(self) -> bool {
        !matches!(self, Self::ConnectFailed | Self::ConnectTimeout)
    }

    /// It cost the whole of its time.
    pub fn is_hang(self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::Timeout)
    }
}
