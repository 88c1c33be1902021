//! One instance as it was declared, and what an operator says over its head.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::SystemTime;

use super::Address;

/// What an instance's record says. The id is the record's key, not part of the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    pub address: Address,
    /// 0 means no new traffic; the default is 100.
    pub weight: u16,
    pub lifecycle: Lifecycle,
    /// 0 is preferred; higher tiers take what lower ones cannot.
    pub tier: u8,
    pub zone: Option<Arc<str>>,
    pub protocol: Protocol,
    /// Requests in flight at most; 0 means no limit.
    pub max_requests: u32,
    pub probe: ProbeTarget,
    pub metadata: BTreeMap<String, String>,
}

impl InstanceSpec {
    pub const WEIGHT_DEFAULT: u16 = 100;

    /// What a plain `HOST:PORT` value declares.
    pub fn at(address: Address) -> Self {
        Self {
            address,
            weight: Self::WEIGHT_DEFAULT,
            lifecycle: Lifecycle::Ready,
            tier: 0,
            zone: None,
            protocol: Protocol::Http,
            max_requests: 0,
            probe: ProbeTarget::default(),
            metadata: BTreeMap::new(),
        }
    }
}

/// What operators want of an instance: the second axis beside what probes found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Lifecycle {
    #[default]
    Ready,
    /// Finish what runs, take nothing new.
    Draining,
    /// Out of service until said otherwise; like draining, without an end.
    Maintenance,
}

impl Lifecycle {
    pub const ALL: [Self; 3] = [Self::Ready, Self::Draining, Self::Maintenance];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How an instance is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Protocol {
    #[default]
    Http,
    Https,
    H2,
    H2c,
}

impl Protocol {
    pub const ALL: [Self; 4] = [Self::Http, Self::Https, Self::H2, Self::H2c];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2 => "h2",
            Self::H2c => "h2c",
        }
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }

    pub fn is_http2(self) -> bool {
        matches!(self, Self::H2 | Self::H2c)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an instance wants to be probed. How often is the service's to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeTarget {
    pub path: Option<String>,
    pub port: Option<NonZeroU16>,
}

/// `/overrides/SERVICE/ID`: wins over the instance's own record and survives its re-registration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Override {
    pub lifecycle: Option<Lifecycle>,
    pub weight: Option<u16>,
    /// From then on it is as if it were not there.
    pub until: Option<SystemTime>,
}

impl Override {
    pub fn in_force(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
