//! How Pingora reaches the instances: a dialler for each, and a peer that says how to speak to it.
//!
//! Pingora pools connections by a hash of the peer and cannot be told to drop some. So every instance has a dialler of
//! ours, which tells the line of each socket; shutting an idle one down lets Pingora's own poll find it closed. The hash gets
//! the instance's generation and how it is spoken to, so a connection is never used for another life of an address.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::upstreams::peer::{HttpPeer, Tracer, Tracing};
use pingora_error::{Error, ErrorType, Result};

use super::trust::Forms;
use crate::model::{InstanceSpec, ServicePolicy};
use crate::pool::Instance;
use crate::proxy::upstream::{Claim, Line, Opened, POOLED_IDLE, Upstreams, dial};

/// The peers of one worker.
#[derive(Debug)]
pub struct Peers {
    pub upstreams: Arc<Upstreams>,
    made: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By generation.
    peers: HashMap<u64, Made, foldhash::fast::RandomState>,
    forms: Forms,
}

/// Copied for every attempt; made anew when the record or the policy behind it is another one, or the line is.
#[derive(Debug)]
struct Made {
    peer: HttpPeer,
    spec: Arc<InstanceSpec>,
    policy: Arc<ServicePolicy>,
    line: Arc<Line>,
}

impl Peers {
    pub fn new(upstreams: Arc<Upstreams>) -> Self {
        Self { upstreams, made: Mutex::default() }
    }

    /// The peer for an attempt at this instance, and the claim that keeps its connection from being closed as idle.
    /// `None`: the instance has no address. `first`: what its connection begins with.
    pub fn claim(
        &self,
        instance: &Arc<Instance>,
        policy: &Arc<ServicePolicy>,
        fresh: bool,
        first: Vec<u8>,
    ) -> Option<(Box<HttpPeer>, Claim)> {
        let addr = instance.standing.addr?;
        let line = self.upstreams.line(instance, policy);
        let mut peer = Box::new(self.peer(instance, addr, policy, &line));
        if fresh || !first.is_empty() {
            // No pooled connection has this key, and none stays pooled under it.
            peer.group_key = fastrand::u64(..);
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        if !first.is_empty() {
            let dialler = Dialler { line: line.clone(), timeout: policy.connect_within(), first };
            peer.options.custom_l4 = Some(Arc::new(dialler));
        }
        Some((peer, Claim::new(line)))
    }

    /// Drops what was kept of instances that nobody asks for any more.
    pub fn forget(&self) {
        let mut kept = self.lock();
        kept.peers.retain(|generation, _| self.upstreams.knows(*generation));
        kept.forms.forget();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, instance: &Instance, addr: SocketAddr, policy: &Arc<ServicePolicy>, line: &Arc<Line>) -> HttpPeer {
        let generation = instance.state.generation;
        let mut kept = self.lock();
        let same =
            |m: &&Made| Arc::ptr_eq(&m.spec, &instance.spec) && Arc::ptr_eq(&m.policy, policy) && Arc::ptr_eq(&m.line, line);
        if let Some(found) = kept.peers.get(&generation).filter(same) {
            return found.peer.clone();
        }
        let peer = peer_of(instance, addr, policy, line, &mut kept.forms);
        let (spec, policy, line) = (instance.spec.clone(), policy.clone(), line.clone());
        kept.peers.insert(generation, Made { peer: peer.clone(), spec, policy, line });
        peer
    }
}

/// Opens connections to one instance for Pingora.
#[derive(Debug)]
struct Dialler {
    line: Arc<Line>,
    timeout: Duration,
    first: Vec<u8>,
}

/// Pingora calls it before it closes the descriptor.
#[derive(Debug, Clone)]
struct Traced(Opened);

impl Tracing for Traced {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.0.gone();
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Connect for Dialler {
    async fn connect(&self, addr: &PingoraAddr) -> Result<Stream> {
        let Some(addr) = addr.as_inet() else { return Error::e_explain(ErrorType::InternalError, "not an IP address") };
        let stream = dial(*addr, self.timeout, &self.first).await.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, "connecting to an instance", error)
        })?;
        let opened = self.line.opened(stream.as_raw_fd());
        let mut stream = Stream::from(stream);
        stream.tracer = Some(Tracer(Box::new(Traced(opened))));
        Ok(stream)
    }
}

fn peer_of(instance: &Instance, addr: SocketAddr, policy: &ServicePolicy, line: &Arc<Line>, forms: &mut Forms) -> HttpPeer {
    let protocol = instance.spec.protocol;
    let secure = line.secure.as_ref();
    let mut peer = HttpPeer::new(addr, secure.is_some(), secure.map(|s| s.name.clone()).unwrap_or_default());
    let mut hasher = DefaultHasher::new();
    (instance.state.generation, protocol, secure.map(|s| (s.trust.number, &s.name))).hash(&mut hasher);
    peer.group_key = hasher.finish();
    peer.client_cert_key = secure.and_then(|s| forms.apply(&s.trust, &mut peer.options));

    let options = &mut peer.options;
    let version = if protocol.is_http2() { 2 } else { 1 };
    options.set_http_version(version, version);
    options.max_h2_streams = STREAMS_MAX;
    options.h2_ping_interval = protocol.is_http2().then_some(PING_EVERY);
    options.total_connection_timeout = Some(policy.connect_within());
    // Between two bytes; how long a response head may take is watched by `Line::close_overdue`.
    options.read_timeout = Some(policy.timeouts.idle);
    options.write_timeout = Some(policy.timeouts.idle);
    options.idle_timeout = Some(POOLED_IDLE);
    options.custom_l4 = Some(Arc::new(Dialler { line: line.clone(), timeout: policy.connect_within(), first: Vec::new() }));
    peer
}

/// Requests at once on one HTTP/2 connection: what servers allow by default.
const STREAMS_MAX: usize = 100;
const PING_EVERY: Duration = Duration::from_secs(10);
