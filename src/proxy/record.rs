//! The facts of one finished request, gathered once; counters and access log both read them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::Version;

use super::arrival::{Arrival, Trace};
use super::attempt::{AttemptRecord, Forwarding};
use super::limits::Limit;
use super::stats::WorkerStats;

/// Borrowed: when nobody logs, nothing is copied.
#[derive(Debug)]
pub struct RequestRecord<'a> {
    pub at: SystemTime,
    pub request_id: &'a str,
    pub trace: Trace,
    pub client: IpAddr,
    /// Empty, as are host and target, where it was refused before it was read.
    pub method: &'a str,
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

impl<'a> RequestRecord<'a> {
    /// Of something that never became a request. `said`: in which protocol, and which status it was answered with.
    pub fn of_no_request(arrival: &'a Arrival, said: (Version, u16), reason: &'a str, took: Duration) -> Self {
        Self {
            at: arrival.at,
            request_id: &arrival.request_id,
            trace: arrival.trace,
            client: arrival.client,
            method: "",
            host: "",
            target: "",
            version: said.0,
            status: said.1,
            bytes: 0,
            referer: None,
            user_agent: None,
            forwarding: None,
            first_byte: None,
            total: took,
            reason: Some(reason),
        }
    }
}

impl RequestRecord<'_> {
    pub fn attempts(&self) -> &[AttemptRecord] {
        self.forwarding.map_or(&[], |f| &f.attempts)
    }

    /// Adds the request to what was counted on its route and service, or on the worker when it met none.
    pub fn count(&self, worker: &WorkerStats) {
        if let Some(limit) = self.reason.and_then(Limit::behind) {
            worker.limits.count(limit);
        }
        let Some(forwarding) = self.forwarding else { return worker.unrouted.count(self.status) };
        forwarding.route.stats.count(self.status);
        if let Some(service) = &forwarding.service {
            service.stats.requests.record(self.total);
        }
    }
}
