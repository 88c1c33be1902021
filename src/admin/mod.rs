//! FLOOR 5. The admin address: what the proxy knows, for people and programs. It only reads.
//!
//! 1. `listener` accepts, with a bound on everything a client can hold.
//! 2. `guard` turns away what does not only read, and names that a web page could have made up.
//! 3. `access` asks for a token, where one is to be shown.
//! 4. [`Admin::answer`] finds what the path names; each has a file of its own.
//! 5. Long answers are written while they leave (`body`), from one snapshot, so they are of one revision.
//!
//! Invariants: no request changes anything; nothing here is on the path of a proxied request; every answer of
//! `/api` is JSON, errors too. Deliberately absent: secrets. What is shown here may be pasted into a ticket.

mod access;
mod acme;
mod body;
mod certificates;
mod events;
mod explain;
mod guard;
mod listener;
mod metrics;
mod page;
mod patience;
mod query;
mod reply;
mod routes;
mod services;
mod sources;
mod status;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::watch;

pub use access::Access;
pub use listener::serve;
pub use sources::{AcmeReading, ProxyReading, Reading, RegistryReading, RegistryTimings, RejectedRecord, SourceReading, Sources};

use body::Body;
use events::Followers;
use query::percent_decode;
use reply::{Refusal, json_reply, text_reply};

type Reply = Response<Body>;

struct Admin {
    sources: Arc<Sources>,
    followers: Followers,
}

impl Admin {
    fn new(sources: Arc<Sources>, shutdown: watch::Receiver<bool>) -> Self {
        Self { sources, followers: Followers::new(shutdown) }
    }

    fn answer<B>(&self, request: &Request<B>) -> Reply {
        let (path, query) = (request.uri().path(), request.uri().query());
        let path = path.strip_suffix('/').unwrap_or(path);
        self.find(path, query, request.headers()).unwrap_or_else(Refusal::reply)
    }

    fn find(&self, path: &str, query: Option<&str>, fields: &HeaderMap) -> Result<Reply, Refusal> {
        let sources = &self.sources;
        let json = |value| json_reply(StatusCode::OK, &value);
        Ok(match path {
            "" => page::page(),
            "/livez" => text_reply("ok\n"),
            "/readyz" => status::readiness(sources),
            "/metrics" => metrics::metrics(sources.clone(), fields),
            "/api/v1/status" => json(status::status(sources)),
            "/api/v1/services" => services::list(sources.live.load_full()),
            "/api/v1/routes" => routes::list(sources.live.load_full()),
            "/api/v1/certificates" => certificates::list(sources.clone()),
            "/api/v1/explain" => json(explain::explain(sources, query)?),
            "/api/v1/events" => self.followers.events(&sources.history, query, fields)?,
            path => {
                let name = path.strip_prefix("/api/v1/services/").and_then(percent_decode).ok_or(Refusal::NoEndpoint)?;
                services::one(&sources.live.load(), &name)?
            }
        })
    }
}

/// What a wrong path is answered with.
const ENDPOINTS: &[&str] = &[
    "/",
    "/livez",
    "/readyz",
    "/metrics",
    "/api/v1/status",
    "/api/v1/services",
    "/api/v1/services/NAME",
    "/api/v1/routes",
    "/api/v1/certificates",
    "/api/v1/explain?method=&url=&header=",
    "/api/v1/events?since=",
];
