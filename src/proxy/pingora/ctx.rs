//! One request's progress through Pingora's callbacks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;

use super::link::{Running, SessionLink};
use crate::proxy::arrival::Arrival;
use crate::proxy::attempt::Forwarding;
use crate::proxy::edit::Asked;
use crate::proxy::forward::Origin;
use crate::proxy::reply::Refusal;
use crate::proxy::upstream::Claim;

/// Later callbacks find here what earlier ones settled; nothing is decided twice.
#[derive(Debug, Default)]
pub struct RequestCtx {
    /// `None` only before `early_request_filter`.
    pub arrived: Option<Arrived>,
    pub stage: Stage,
    /// Chosen, and not yet asked for.
    pub peer: Option<Box<HttpPeer>>,
    /// The running attempt's hold on its instance's connections.
    pub claim: Option<Claim>,
    /// Before the next attempt.
    pub pause: Duration,
    pub due: Option<Due>,
    /// Responses that came before the response.
    pub n_interim: usize,
    /// From the request head to the head of the response.
    pub first_byte: Option<Duration>,
    /// When the request took less time than closing its connection.
    pub total: Option<Duration>,
    /// The answer is out, while the request is not: what comes of the rest changes nothing.
    pub answered: bool,
    /// How an answer that had begun broke off.
    pub broken: Option<&'static str>,
}

#[derive(Debug)]
pub struct Arrived {
    pub arrival: Arrival,
    pub link: Arc<SessionLink>,
    /// `None` once the answer is out: what is left of the request does not keep its connection.
    pub running: Option<Running>,
}

/// How far a request is.
#[derive(Debug, Default)]
pub enum Stage {
    #[default]
    Received,
    Forwarding(Box<Way>),
    /// We answer ourselves; it may have been routed and tried before.
    Refused(Refusal, Option<Box<Way>>),
    /// The connection is somebody else's now, and so is the record of this request.
    HandedOver,
}

/// What was found out about a request that has a route.
#[derive(Debug)]
pub struct Way {
    pub forwarding: Forwarding,
    pub origin: Origin<'static>,
    /// The request target in origin form, where it cannot stay as the client wrote it.
    pub target: Option<String>,
    /// Messages may be far apart in either direction.
    pub is_grpc: bool,
}

impl Way {
    /// `request`: as it came.
    pub fn asked<'a>(&'a self, arrival: &'a Arrival, request: &'a RequestHeader) -> Asked<'a> {
        Asked::new(arrival, &self.origin, self.target.as_deref().map_or(request.raw_path(), str::as_bytes))
    }

    /// What instances are asked for, where that is not what the client has written.
    pub fn sent_target(&self) -> Option<&str> {
        self.forwarding.target.as_deref().or(self.target.as_deref())
    }
}

/// What has to happen before the response begins, and until when; else the connection to the instance is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// More of the request body.
    Body(Instant),
    /// The head of the response.
    Head(Instant),
}

impl RequestCtx {
    pub fn way(&self) -> Option<&Way> {
        match &self.stage {
            Stage::Forwarding(way) | Stage::Refused(_, Some(way)) => Some(way),
            _ => None,
        }
    }

    pub fn forwarding(&mut self) -> Option<&mut Forwarding> {
        match &mut self.stage {
            Stage::Forwarding(way) | Stage::Refused(_, Some(way)) => Some(&mut way.forwarding),
            _ => None,
        }
    }

    /// What browsers are told by the listener that the request came to.
    pub fn hsts(&self) -> Option<&str> {
        self.arrived.as_ref()?.link.listening.hsts.as_deref()
    }

    pub fn refuse(&mut self, refusal: Refusal) {
        let way = match std::mem::take(&mut self.stage) {
            Stage::Forwarding(way) => Some(way),
            Stage::Refused(_, way) => way,
            Stage::Received | Stage::HandedOver => None,
        };
        self.stage = Stage::Refused(refusal, way);
    }

    /// What was waited for in vain when the attempt broke off.
    pub fn overdue(&self, now: Instant) -> Option<Due> {
        self.due.filter(|(Due::Body(at) | Due::Head(at))| *at <= now)
    }
}
