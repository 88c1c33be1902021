//! The facts of one finished request, gathered once; counters and access log both read them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{Method, Version};

use super::arrival::Trace;
use super::attempt::{AttemptRecord, Forwarding};
use super::stats::WorkerStats;

/// Borrowed: when nobody logs, nothing is copied.
#[derive(Debug)]
pub struct RequestRecord<'a> {
    pub at: SystemTime,
    pub request_id: &'a str,
    pub trace: Trace,
    pub client: IpAddr,
    pub method: &'a Method,
    pub host: &'a str,
    /// Path and query, as the client wrote them.
    pub target: &'a str,
    pub version: Version,
    /// 0: the client left before one was sent.
    pub status: u16,
    /// Of the response body.
    pub bytes: u64,
    pub referer: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    /// `None`: the request was refused before it had a route.
    pub forwarding: Option<&'a Forwarding>,
    /// From the request head to the first byte of the response head.
    pub first_byte: Option<Duration>,
    pub total: Duration,
    /// Why we answered ourselves, or how the answer broke off.
    pub reason: Option<&'a str>,
}

impl RequestRecord<'_> {
    pub fn attempts(&self) -> &[AttemptRecord] {
        self.forwarding.map_or(&[], |f| &f.attempts)
    }

    /// Adds the request to what was counted on its route and service, or on the worker when it met none.
    pub fn count(&self, worker: &WorkerStats) {
        let Some(forwarding) = self.forwarding else { return worker.unrouted.count(self.status) };
        forwarding.route.stats.count(self.status);
        if let Some(service) = &forwarding.service {
            service.stats.requests.record(self.total);
        }
    }
}
