//! What is known of a connection beside its stream: an engine may own the stream while a request runs, and an HTTP/2
//! session never shows it, so both sides hold this.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use crate::proxy::head::Scheme;
use crate::proxy::listening::Listening;
use crate::proxy::stats::WorkerStats;
use crate::tls::ClientCertificate;

/// One downstream connection.
#[derive(Debug)]
pub struct Link {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub listening: Arc<Listening>,
    /// Who the client has shown to be.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    pub stats: Arc<WorkerStats>,
    phase: AtomicU8,
    killed: AtomicBool,
    abandoned: AtomicBool,
    begun: AtomicU32,
    odd_body: AtomicBool,
}

/// What is known of a connection when it is accepted.
#[derive(Debug, Clone)]
pub struct Met {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub listening: Arc<Listening>,
    pub stats: Arc<WorkerStats>,
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
    /// The rest of a request body whose answer is out already.
    Rest = 3,
    Multiplexed = 4,
}

impl Link {
    pub fn new(met: Met, client_certificate: Option<ClientCertificate>) -> Arc<Self> {
        let Met { peer, local, listening, stats } = met;
        Arc::new(Self {
            peer,
            local,
            listening,
            client_certificate: client_certificate.map(Arc::new),
            stats,
            phase: AtomicU8::new(Phase::Head as u8),
            killed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            begun: AtomicU32::new(0),
            odd_body: AtomicBool::new(false),
        })
    }

    pub fn scheme(&self) -> Scheme {
        self.listening.scheme()
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Head,
            1 => Phase::Body,
            2 => Phase::Answer,
            3 => Phase::Rest,
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

    /// The client takes nothing of what there is for it: the connection ends without waiting for it.
    pub fn abandon(&self) {
        self.kill();
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// The body of the request that runs can be read in two ways.
    pub fn body_is_odd(&self) {
        self.odd_body.store(true, Ordering::Relaxed);
    }

    pub fn is_body_odd(&self) -> bool {
        self.odd_body.load(Ordering::Relaxed)
    }

    /// A head has become a request.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests since the last time somebody asked.
    pub fn take_begun(&self) -> u32 {
        self.begun.swap(0, Ordering::Relaxed)
    }
}
