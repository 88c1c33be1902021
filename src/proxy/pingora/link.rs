//! How the filters of a request find the connection under it, and hand it a tunnel.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::tunnel::Tunnel;
use crate::proxy::downstream::Link;

/// The link of a connection while Pingora has it.
#[derive(Debug)]
pub struct SessionLink {
    link: Arc<Link>,
    tunnel: Mutex<Option<Box<Tunnel>>>,
    requests: Mutex<Requests>,
    /// The last request that ran has ended.
    quiet: Notify,
}

#[derive(Debug)]
struct Requests {
    running: usize,
    /// When the last of them ended, or the connection began.
    since: Instant,
}

/// A request of a connection that may have many, until it is dropped.
#[derive(Debug)]
pub struct Running(Arc<SessionLink>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut requests = self.0.requests();
        requests.running = requests.running.saturating_sub(1);
        if requests.running == 0 {
            requests.since = Instant::now();
            self.0.quiet.notify_one();
        }
    }
}

impl SessionLink {
    pub fn new(link: Arc<Link>) -> Arc<Self> {
        let requests = Mutex::new(Requests { running: 0, since: Instant::now() });
        Arc::new(Self { link, tunnel: Mutex::new(None), requests, quiet: Notify::new() })
    }

    pub fn begin(self: &Arc<Self>) -> Running {
        self.requests().running += 1;
        self.link.begin();
        Running(self.clone())
    }

    /// Returns when no request has run for so long.
    pub async fn idle_for(&self, time: Duration) {
        loop {
            let (running, since) = {
                let requests = self.requests();
                (requests.running, requests.since)
            };
            if running > 0 {
                self.quiet.notified().await;
            } else if since + time <= Instant::now() {
                return;
            } else {
                sleep_until((since + time).into()).await;
            }
        }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
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
