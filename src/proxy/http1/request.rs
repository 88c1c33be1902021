//! One request and what became of it so far.

use std::sync::Arc;
use std::time::Duration;

use http::Version;

use super::fields::FieldList;
use super::head::Head;
use super::response::has_option;
use crate::catalog::Live;
use crate::config::ClientLimits;
use crate::model::ServicePolicy;
use crate::proxy::arrival::Arrival;
use crate::proxy::attempt::Forwarding;
use crate::proxy::downstream::Link;
use crate::proxy::explain::explain;
use crate::proxy::forward::{self, FieldsMut, Origin};
use crate::proxy::head::{Framing, RawHead, RequestHead};
use crate::proxy::record::RequestRecord;
use crate::proxy::reply::Refusal;
use crate::proxy::route::route;
use crate::routing::Fields;

#[derive(Debug)]
pub struct Request {
    pub head: Head,
    pub arrival: Arrival,
    /// `None` until it has a route.
    pub way: Option<Way>,
    /// Of the response that went to the client; 0 until one has begun.
    pub status: u16,
    /// Bytes of the response's body.
    pub sent: u64,
    pub first_byte: Option<Duration>,
    /// Why we answered ourselves, or how the answer broke off.
    pub reason: Option<&'static str>,
    /// The client's connection ends with this request.
    pub closes: bool,
}

/// What was found out about a request that has a route.
#[derive(Debug)]
pub struct Way {
    pub forwarding: Forwarding,
    pub policy: Arc<ServicePolicy>,
    origin: Origin<'static>,
    /// The request target, where it cannot stay as the client wrote it.
    target: Option<String>,
    /// Messages may be far apart in either direction.
    pub is_grpc: bool,
    framing: Framing,
}

impl Request {
    pub fn new(head: Head, arrival: Arrival) -> Self {
        let closes = has_option(&head, "close");
        Self { head, arrival, way: None, status: 0, sent: 0, first_byte: None, reason: None, closes }
    }

    /// Checks the head and finds its route. The body's framing is known even where there is no route.
    pub fn find_way(&mut self, live: &Live, limits: &ClientLimits, link: &Link) -> Result<Framing, (Refusal, Option<Framing>)> {
        let Head { method, .. } = &self.head;
        let raw = RawHead {
            method,
            target: self.head.target(),
            authority: None,
            version: Version::HTTP_11,
            fields: &self.head,
            peer: link.peer,
            scheme: link.scheme(),
        };
        let head = RequestHead::check(raw, limits).map_err(|refusal| (refusal, None))?;
        let framing = head.framing;
        link.listening.admit(&head).map_err(|refusal| (refusal, Some(framing)))?;
        let forwarding = route(&live.load(), &head, &self.arrival).map_err(|refusal| (refusal, Some(framing)))?;
        let policy = forwarding.policy().cloned().unwrap_or_default();
        self.way = Some(Way {
            policy,
            forwarding,
            origin: Origin::of(&head).into_owned(),
            target: head.rewritten.then(|| head.origin_form()),
            is_grpc: head.fields.get("content-type").is_some_and(|t| t.starts_with(b"application/grpc")),
            framing,
        });
        Ok(framing)
    }

    /// Every instance of the service is spoken to in HTTP/1.1 without TLS.
    pub fn is_for_http1(&self) -> bool {
        let service = self.way.as_ref().and_then(|way| way.forwarding.service.as_ref());
        service.is_none_or(|service| service.pool.speaks_http1())
    }

    pub fn forwarding(&mut self) -> Option<&mut Forwarding> {
        self.way.as_mut().map(|way| &mut way.forwarding)
    }

    pub fn is_answered(&self) -> bool {
        self.status != 0
    }

    /// The head as the instance of this attempt gets it.
    pub fn write_head(&self, out: &mut Vec<u8>) {
        let Some(way) = &self.way else { return };
        let mut fields = FieldList::of(self.head.fields());
        forward::rewrite_request(&mut fields, &self.arrival, &way.origin, way.forwarding.number());
        if way.framing == Framing::Chunked {
            fields.set("transfer-encoding", b"chunked");
        }
        out.extend_from_slice(self.head.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(way.target.as_deref().map_or(self.head.target(), str::as_bytes));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        fields.write(out);
        out.extend_from_slice(b"\r\n");
    }

    /// What a trusted client is told that asked for it.
    pub fn explained(&self, refusal: Option<&Refusal>) -> Vec<(&'static str, String)> {
        if !self.arrival.debug {
            return Vec::new();
        }
        explain(self.way.as_ref().map(|way| &way.forwarding), refusal)
    }

    /// The response has begun.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
        self.first_byte = Some(self.arrival.started.elapsed());
    }

    pub fn record(&self) -> RequestRecord<'_> {
        RequestRecord {
            at: self.arrival.at,
            request_id: &self.arrival.request_id,
            trace: self.arrival.trace,
            client: self.arrival.client,
            method: &self.head.method,
            host: self.host(),
            target: std::str::from_utf8(self.head.target()).unwrap_or_default(),
            version: Version::HTTP_11,
            status: self.status,
            bytes: self.sent,
            referer: self.head.text("referer"),
            user_agent: self.head.text("user-agent"),
            forwarding: self.way.as_ref().map(|way| &way.forwarding),
            first_byte: self.first_byte,
            total: self.arrival.started.elapsed(),
            reason: self.reason,
        }
    }

    fn host(&self) -> &str {
        match &self.way {
            Some(way) => &way.origin.authority,
            None => self.head.text("host").unwrap_or_default(),
        }
    }
}
