//! One request and what became of it so far.

use std::sync::Arc;
use std::time::Duration;

use super::fields::FieldList;
use super::head::Head;
use super::response::has_option;
use crate::catalog::Live;
use crate::config::ClientLimits;
use crate::model::ServicePolicy;
use crate::proxy::arrival::Arrival;
use crate::proxy::attempt::Forwarding;
use crate::proxy::challenge;
use crate::proxy::downstream::Link;
use crate::proxy::edit::{self, Asked};
use crate::proxy::explain::explain;
use crate::proxy::forward::{self, FieldsMut, Origin};
use crate::proxy::head::{Framing, RawHead, RequestHead};
use crate::proxy::rate::Rates;
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
    /// The request target in origin form, where it cannot stay as the client wrote it.
    target: Option<String>,
    /// Messages may be far apart in either direction.
    pub is_grpc: bool,
    pub framing: Framing,
    expects: bool,
}

impl Request {
    pub fn new(head: Head, arrival: Arrival) -> Self {
        let closes = head.is_old || has_option(&head, "close");
        Self { head, arrival, way: None, status: 0, sent: 0, first_byte: None, reason: None, closes }
    }

    /// Checks the head and finds its route. The body's framing is known even where there is no route.
    pub fn find_way(&mut self, live: &Live, limits: &ClientLimits, link: &Link) -> Result<Framing, (Refusal, Option<Framing>)> {
        let Head { method, .. } = &self.head;
        let raw = RawHead {
            method,
            target: self.head.target(),
            authority: None,
            version: self.head.version(),
            fields: &self.head,
            peer: link.peer,
            scheme: link.scheme(),
        };
        let head = RequestHead::check(raw, limits).map_err(|refusal| (refusal, None))?;
        let framing = head.framing;
        let snapshot = live.load();
        let forwarding = challenge::answer(&snapshot.acme, &head, &link.stats.challenges)
            .and_then(|()| link.listening.admit(&head))
            .and_then(|()| route(&snapshot, &head, &self.arrival))
            .map_err(|refusal| (refusal, Some(framing)))?;
        let policy = forwarding.policy().cloned().unwrap_or_default();
        let mut origin = Origin::of(&head).into_owned();
        if origin.authority.is_empty() {
            // HTTP/1.0 need not name a host. It asked whoever it is connected to.
            origin.authority = link.local.to_string().into();
        }
        self.way = Some(Way {
            policy,
            forwarding,
            origin,
            expects: head.expects,
            target: head.rewritten.then(|| head.origin_form()),
            is_grpc: head.fields.get("content-type").is_some_and(|t| t.starts_with(b"application/grpc")),
            framing,
        });
        Ok(framing)
    }

    /// Whether its route takes it now. Of a request for the other engine, that one asks.
    pub fn admit(&self, rates: &Rates) -> Result<(), Refusal> {
        match &self.way {
            Some(way) if !self.is_general() => rates.admit(&way.forwarding.route, &self.head, &self.arrival),
            _ => Ok(()),
        }
    }

    /// The other engine has to do it: HTTP/1.0, upgrades, and services with an instance that speaks HTTP/2.
    pub fn is_general(&self) -> bool {
        let service = self.way.as_ref().and_then(|way| way.forwarding.service.as_ref());
        let speaks_http1 = service.is_none_or(|service| service.pool.speaks_http1());
        self.head.is_old || self.upgrade().is_some() || !speaks_http1
    }

    /// It waits to be told that it may send its body.
    pub fn expects(&self) -> bool {
        self.way.as_ref().is_some_and(|way| way.expects && way.forwarding.instead.is_none())
    }

    /// The protocol it would rather speak. `h2c` is none: clients that want HTTP/2 begin with it.
    fn upgrade(&self) -> Option<&[u8]> {
        let has_body = self.way.as_ref().is_some_and(|way| way.framing != Framing::Nothing);
        let protocol = self.head.get("upgrade").filter(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))?;
        (!self.head.is_old && !has_body && has_option(&self.head, "upgrade")).then_some(protocol)
    }

    /// The head for the other engine, which reads less strictly than we do: what belonged to the client's connection is gone,
    /// and what was understood is said in one way.
    pub fn plain_head(&self) -> Vec<u8> {
        let Some(way) = &self.way else { return Vec::new() };
        let mut fields = FieldList::of(self.head.fields());
        forward::plain_request(&mut fields, &way.origin);
        if let Some(protocol) = self.upgrade() {
            forward::ask_upgrade(&mut fields, protocol);
        } else if self.head.is_old && has_option(&self.head, "keep-alive") && !has_option(&self.head, "close") {
            fields.set("connection", b"keep-alive");
        } else if self.closes {
            fields.set("connection", b"close");
        }
        let mut out = Vec::new();
        self.write_line(self.target(way), if self.head.is_old { "HTTP/1.0" } else { "HTTP/1.1" }, &mut out);
        self.write_fields(way, fields, &mut out);
        out
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
        edit::request(&mut fields, &way.forwarding.route.spec, || self.asked(way));
        let target = way.forwarding.target.as_deref().map_or(self.target(way), str::as_bytes);
        self.write_line(target, "HTTP/1.1", out);
        self.write_fields(way, fields, out);
    }

    /// What the route changes in an answer, and the listener.
    pub fn edit_response<'s>(&'s self, fields: &mut FieldList<'s>, hsts: Option<&str>) {
        if let Some(way) = &self.way {
            edit::response(fields, &way.forwarding.route.spec, || self.asked(way));
        }
        forward::stay_secure(fields, hsts);
    }

    /// As the client asked for it, in origin form.
    fn target<'s>(&'s self, way: &'s Way) -> &'s [u8] {
        way.target.as_deref().map_or(self.head.target(), str::as_bytes)
    }

    fn asked<'s>(&'s self, way: &'s Way) -> Asked<'s> {
        Asked::new(&self.arrival, &way.origin, self.target(way))
    }

    fn write_line(&self, target: &[u8], version: &str, out: &mut Vec<u8>) {
        [self.head.method.as_str().as_bytes(), b" ", target, b" ", version.as_bytes(), b"\r\n"]
            .iter()
            .for_each(|part| out.extend_from_slice(part));
    }

    fn write_fields(&self, way: &Way, mut fields: FieldList<'_>, out: &mut Vec<u8>) {
        if way.framing == Framing::Chunked {
            fields.set("transfer-encoding", b"chunked");
        }
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
            method: self.head.method.as_str(),
            host: self.host(),
            target: std::str::from_utf8(self.head.target()).unwrap_or_default(),
            version: self.head.version(),
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
