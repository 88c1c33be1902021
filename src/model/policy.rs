//! How the traffic of one service is treated. Every default stands in `Default` here and nowhere else;
//! `docs/registry.md` lists the same numbers with their sources.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::Secret;

/// `/services/NAME`, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePolicy {
    pub balance: Balance,
    pub hash_on: Option<HashOn>,
    /// Percent of its fair share that an instance may have in flight where picking goes by a key; `None`: no bound.
    pub hash_bound: Option<u16>,
    pub probe: ProbePolicy,
    pub ejection: EjectionPolicy,
    pub retry: RetryPolicy,
    pub timeouts: TimeoutPolicy,
    pub slow_start: Duration,
    /// `None`: a slow instance weighs as much as any.
    pub latency_outliers: Option<LatencyOutlierPolicy>,
    pub panic: Panic,
    pub limits: LimitPolicy,
    pub sticky: Option<StickyPolicy>,
    pub protection: ProtectionPolicy,
    pub zone_aware: bool,
    pub tls: Option<UpstreamTls>,
    /// Connections begin with a header of this version, so none is shared by two clients.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl ServicePolicy {
    /// How long a request waits for a connection, before its instance is left for another.
    pub fn connect_within(&self) -> Duration {
        self.retry.per_try_timeout.map_or(self.timeouts.connect, |attempt| attempt.min(self.timeouts.connect))
    }

    /// And how long for the head of the answer, from the last byte of the request on.
    pub fn head_within(&self) -> Duration {
        self.retry.per_try_timeout.map_or(self.timeouts.response_head, |attempt| attempt.min(self.timeouts.response_head))
    }
}

impl Default for ServicePolicy {
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            hash_on: None,
            hash_bound: None,
            probe: ProbePolicy::default(),
            ejection: EjectionPolicy::default(),
            retry: RetryPolicy::default(),
            timeouts: TimeoutPolicy::default(),
            slow_start: Duration::from_secs(30),
            latency_outliers: None,
            panic: Panic::Below(50),
            limits: LimitPolicy::default(),
            sticky: None,
            protection: ProtectionPolicy::default(),
            zone_aware: false,
            tls: None,
            proxy_protocol: None,
        }
    }
}

/// A way to pick among the instances of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    #[default]
    P2c,
    PeakEwma,
    LeastConn,
    RoundRobin,
    Random,
    Maglev,
    Hash,
}

impl Balance {
    pub const ALL: [Self; 7] =
        [Self::P2c, Self::PeakEwma, Self::LeastConn, Self::RoundRobin, Self::Random, Self::Maglev, Self::Hash];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::P2c => "p2c",
            Self::PeakEwma => "peak_ewma",
            Self::LeastConn => "least_conn",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Maglev => "maglev",
            Self::Hash => "hash",
        }
    }
}

/// What the hashing algorithms look at: `"header:NAME"`, `"cookie:NAME"`, `"query:NAME"`, `"path"`, `"client"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    Header(String),
    Cookie(String),
    Query(String),
    Path,
    Client,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePolicy {
    /// `None`: HTTP once a path is given, else TCP.
    pub kind: Option<ProbeKind>,
    pub path: Option<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    pub expect: StatusRanges,
    pub body: Option<String>,
    pub host: Option<String>,
    /// Sent with each probe that is a request: each name once, in their order, the values marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self {
            kind: None,
            path: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            expect: StatusRanges(vec![(200, 399)]),
            body: None,
            host: None,
            headers: Vec::new(),
        }
    }
}

impl ProbePolicy {
    /// Somebody finds out by probing whether instances live.
    pub fn is_on(&self) -> bool {
        self.kind != Some(ProbeKind::None)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    Http,
    Tcp,
    Grpc,
    None,
}

/// `"200-399"` or `"200,204,300-302"`, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatusRanges(pub Vec<(u16, u16)>);

impl StatusRanges {
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl fmt::Display for StatusRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { "," })?;
            write!(f, "{first}")?;
            if first != last {
                write!(f, "-{last}")?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EjectionPolicy {
    pub enabled: bool,
    pub consecutive: u32,
    pub connect_failures: u32,
    pub ratio_percent: u8,
    pub base: Duration,
    pub max: Duration,
    pub max_percent: u8,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive: 5,
            connect_failures: 3,
            ratio_percent: 50,
            base: Duration::from_secs(10),
            max: Duration::from_secs(300),
            max_percent: 30,
        }
    }
}

/// When an instance counts as slow, by medians of the last ten seconds, and what it weighs then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyOutlierPolicy {
    /// Its own is more than this many times the others'.
    pub times: u32,
    /// Whatever the others take, up to this nobody is slow.
    pub above: Duration,
    /// With fewer it is not compared.
    pub requests: u32,
    /// Of its weight, for as long as it is slow.
    pub weight_percent: u8,
}

impl Default for LatencyOutlierPolicy {
    fn default() -> Self {
        Self { times: 3, above: Duration::from_millis(100), requests: 50, weight_percent: 25 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Further attempts after the first; 0 turns retries off.
    pub attempts: u8,
    pub budget_percent: u8,
    pub budget_floor: u32,
    pub per_try_timeout: Option<Duration>,
    /// Bytes of a request body kept for a further attempt.
    pub buffer: u64,
    /// Methods that may be sent again after an instance has seen them.
    pub methods: Vec<http::Method>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 1,
            budget_percent: 20,
            budget_floor: 3,
            per_try_timeout: None,
            buffer: 64 * 1024,
            methods: vec![http::Method::GET, http::Method::HEAD, http::Method::OPTIONS, http::Method::TRACE],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutPolicy {
    pub connect: Duration,
    /// From the last byte of the request to the head of the response.
    pub response_head: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// The same for WebSockets and other upgraded connections.
    pub upgraded_idle: Duration,
    /// How long what runs may take once its instance drains or leaves.
    pub drain: Duration,
}

impl Default for TimeoutPolicy {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response_head: Duration::from_secs(15),
            idle: Duration::from_secs(5 * 60),
            upgraded_idle: Duration::from_secs(60 * 60),
            drain: Duration::from_secs(30),
        }
    }
}

/// Below which share of eligible instances all of them are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panic {
    /// Percent, 0..=100; 0 turns panic off.
    Below(u8),
    /// Refuse instead.
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitPolicy {
    pub in_flight: u32,
    pub queue: u32,
    pub queue_wait: Duration,
}

impl Default for LimitPolicy {
    fn default() -> Self {
        Self { in_flight: 4096, queue: 1024, queue_wait: Duration::from_secs(1) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyPolicy {
    pub cookie: String,
    pub ttl: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectionPolicy {
    /// More than this share of a service has to vanish; 100 turns protection off.
    pub percent: u8,
    pub window: Duration,
    pub limbo: Duration,
}

impl Default for ProtectionPolicy {
    fn default() -> Self {
        Self { percent: 30, window: Duration::from_secs(10), limbo: Duration::from_secs(600) }
    }
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    V1,
    V2,
}

impl ProxyProtocol {
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// How instances that speak TLS are verified, and what they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    pub verify: bool,
    pub server_name: Option<String>,
    /// PEM. `None`: those that the system trusts.
    pub ca: Option<String>,
    pub identity: Option<Identity>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { verify: true, server_name: None, ca: None, identity: None }
    }
}

/// A certificate of ours for those who ask for one, with its key. Both are PEM and belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub chain: String,
    pub key: Secret,
}
