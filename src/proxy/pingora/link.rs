//! What the filters of a request and the connection under it know of each other.
//!
//! Pingora owns the stream while a request runs, and an HTTP/2 session never shows it, so both sides hold this.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::tunnel::Tunnel;
use crate::proxy::head::Scheme;
use crate::proxy::stats::WorkerStats;

/// One downstream connection.
#[derive(Debug)]
pub struct Link {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub scheme: Scheme,
    pub stats: Arc<WorkerStats>,
    phase: AtomicU8,
    killed: AtomicBool,
    resets: AtomicU32,
    tunnel: Mutex<Option<Box<Tunnel>>>,
}

/// What an HTTP/1 client is sending. HTTP/2 connections stay in `Multiplexed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// A request head; its deadline and its size are watched.
    Head = 0,
    /// A request body, if there is one.
    Body = 1,
    /// Nothing of this request any more; what arrives is the next one's and has to wait.
    Answer = 2,
    Multiplexed = 3,
}

impl Link {
    pub fn new(peer: SocketAddr, local: SocketAddr, stats: Arc<WorkerStats>) -> Arc<Self> {
        Arc::new(Self {
            peer,
            local,
            scheme: Scheme::Http,
            stats,
            phase: AtomicU8::new(Phase::Head as u8),
            killed: AtomicBool::new(false),
            resets: AtomicU32::new(0),
            tunnel: Mutex::new(None),
        })
    }

    /// The link of the connection that a session came in on.
    pub fn of(session: &Session) -> Option<&Arc<Self>> {
        session.as_downstream().digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// How [`Link::of`] finds its way: the proxy digest is the one part of a session's description that carries a
    /// value of ours for HTTP/1 and HTTP/2 alike.
    pub fn into_digest(self: Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let unused = ResponseHeader::build(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(unused), Some(Box::new(self)))))
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Head,
            1 => Phase::Body,
            2 => Phase::Answer,
            _ => Phase::Multiplexed,
        }
    }

    /// An HTTP/2 connection has no phases: its streams are at different ones.
    pub fn enter(&self, phase: Phase) {
        if self.phase() != Phase::Multiplexed {
            self.phase.store(phase as u8, Ordering::Relaxed);
        }
    }

    /// The connection ends at its next read or write, whatever Pingora thinks of it.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Counts a stream that its client opened and reset before we answered; too many of them end the connection.
    pub fn stream_was_reset(&self) {
        if self.resets.fetch_add(1, Ordering::Relaxed) >= RESETS_MAX {
            self.kill();
        }
    }

    /// An answered stream shows a client that means it.
    pub fn stream_was_answered(&self) {
        if self.resets.load(Ordering::Relaxed) > 0 {
            self.resets.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The bytes after this request belong to the tunnel.
    pub fn hand_to(&self, tunnel: Tunnel) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tunnel));
    }

    pub fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Resets that a client may be ahead of the answers it took: browsers cancel a page of images, an attack
/// (CVE-2023-44487) does nothing else.
const RESETS_MAX: u32 = 200;
