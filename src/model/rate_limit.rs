//! How many requests a route takes of each client.

use std::time::Duration;

/// `burst` requests at once, then `requests` in each `per`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    pub requests: u32,
    pub per: Duration,
    pub burst: u32,
    pub by: RateKey,
    /// What is over it is counted, and goes through.
    pub dry_run: bool,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// Each client's: an IPv4 address, or an IPv6 network of 64 bits.
    ClientAddress,
    /// Everybody's.
    Route,
    /// Those with the same value of this header (in lower case). Without it, as by address.
    Header(String),
}
