//! How the filters of a request find the connection under it, and hand it a tunnel.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::tunnel::Tunnel;
use crate::proxy::downstream::Link;

/// The link of a connection while Pingora has it.
#[derive(Debug)]
pub struct SessionLink {
    link: Arc<Link>,
    tunnel: Mutex<Option<Box<Tunnel>>>,
}

impl SessionLink {
    pub fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self { link, tunnel: Mutex::new(None) })
    }

    /// The link of the connection that a session came in on.
    pub fn of(session: &Session) -> Option<&Arc<Self>> {
        session.as_downstream().digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// How [`SessionLink::of`] finds its way: the proxy digest is the one part of a session's description that carries a
    /// value of ours for HTTP/1 and HTTP/2 alike.
    pub fn into_digest(self: Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let unused = ResponseHeader::build(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(unused), Some(Box::new(self)))))
    }

    /// The bytes after this request belong to the tunnel.
    pub fn hand_to(&self, tunnel: Tunnel) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tunnel));
    }

    pub fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Deref for SessionLink {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}
