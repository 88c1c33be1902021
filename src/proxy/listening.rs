//! What the configuration says of one listener, as its connections use it.

use std::sync::Arc;

use super::handshake::Terminator;
use super::head::{RequestHead, Scheme};
use super::reply::Refusal;
use crate::catalog::Live;
use crate::config::Listener;

/// The same for all workers.
#[derive(Debug, Default)]
pub struct Listening {
    /// `None`: what comes in is not encrypted.
    pub tls: Option<Terminator>,
    /// The value of `Strict-Transport-Security` for every answer.
    pub hsts: Option<String>,
    redirect_to_https: Option<u16>,
    /// Its connections begin with a PROXY header.
    pub introduced: bool,
}

impl Listening {
    /// `number`: the listener's place in the configuration.
    pub fn new(number: usize, listener: &Listener, live: &Arc<Live>) -> Self {
        Self {
            tls: listener.tls.as_ref().map(|tls| Terminator::new(number, tls, live.clone())),
            hsts: listener.tls.as_ref().and_then(|tls| tls.hsts).map(|hsts| hsts.field()),
            redirect_to_https: listener.redirect_to_https,
            introduced: listener.proxy_protocol,
        }
    }

    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Whether requests are answered here at all.
    pub fn admit(&self, head: &RequestHead<'_>) -> Result<(), Refusal> {
        let Some(port) = self.redirect_to_https else { return Ok(()) };
        if head.host.is_empty() {
            return Err(Refusal::Malformed("the request has no Host, so it cannot be sent on to https"));
        }
        let port = if port == HTTPS { String::new() } else { format!(":{port}") };
        // `OPTIONS *` is about no path.
        let target = if head.path == "*" { "/".to_owned() } else { head.origin_form() };
        Err(Refusal::OverHttps { location: format!("https://{}{port}{target}", head.host) })
    }
}

/// Is left out of a URL.
const HTTPS: u16 = 443;
