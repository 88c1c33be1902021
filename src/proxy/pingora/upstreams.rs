//! How one worker reaches the instances: a dialler for each, and the connections it opened.
//!
//! Pingora pools connections by a hash of the peer and cannot be told to drop some. So every instance has a dialler of
//! ours, which knows its open sockets; shutting an idle one down lets Pingora's own poll find it closed. The hash gets
//! the instance's generation and how it is spoken to, so a connection is never used for another life of an address.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::upstreams::peer::{HttpPeer, Tracer};
use pingora_error::{Error, ErrorType, Result};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::line::{Claim, Line};
use crate::catalog::Snapshot;
use crate::model::{Host, ServicePolicy};
use crate::pool::Instance;

#[derive(Debug, Default)]
pub struct Upstreams {
    /// By generation.
    entries: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    line: Arc<Line>,
    /// Copied for every attempt; made anew when the record or the policy behind it is another one.
    peer: HttpPeer,
    instance: Arc<Instance>,
    policy: Arc<ServicePolicy>,
}

impl Upstreams {
    /// The peer for an attempt at this instance, and the claim that keeps its connection from being closed as idle.
    /// `None`: the instance has no address.
    pub fn claim(&self, instance: &Arc<Instance>, policy: &Arc<ServicePolicy>, fresh: bool) -> Option<(Box<HttpPeer>, Claim)> {
        let addr = instance.standing.addr?;
        let generation = instance.state.generation;
        let mut entries = self.lock();
        let same = |e: &&Entry| Arc::ptr_eq(&e.instance.spec, &instance.spec) && Arc::ptr_eq(&e.policy, policy);
        let (peer, line) = match entries.get(&generation).filter(same) {
            Some(entry) => (entry.peer.clone(), entry.line.clone()),
            None => {
                let line = entries.get(&generation).map(|e| e.line.clone()).unwrap_or_default();
                let peer = peer_of(instance, addr, policy, &line);
                let (instance, policy) = (instance.clone(), policy.clone());
                entries.insert(generation, Entry { line: line.clone(), peer: peer.clone(), instance, policy });
                (peer, line)
            }
        };
        drop(entries);
        let mut peer = Box::new(peer);
        if fresh {
            // No pooled connection has this key, and none stays pooled under it.
            peer.group_key = fastrand::u64(..);
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        Some((peer, Claim::new(line)))
    }

    /// Instances that take no new requests from now on: their idle connections close, busy ones have until the end of
    /// the drain.
    pub fn evict(&self, generations: &[u64], now: Instant) {
        let entries = self.lock();
        generations.iter().filter_map(|generation| entries.get(generation)).for_each(|entry| entry.line.leave(now));
    }

    /// What time does to connections; called at an even pace. Says how many a drain has cut.
    pub fn sweep(&self, snapshot: &Snapshot, now: Instant) -> usize {
        let entries = self.lock();
        let mut cut = 0;
        for Entry { line, instance, policy, .. } in entries.values() {
            line.close_overdue(now);
            if line.has_left() {
                if is_current(snapshot, instance) {
                    line.come_back();
                } else {
                    cut += line.close_drained(now, policy.timeouts.drain);
                }
            }
        }
        cut
    }

    /// Drops what was kept of instances that nobody has asked for since the last call.
    pub fn forget(&self) {
        self.lock().retain(|_, entry| !entry.line.forget());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this life of the instance still takes requests.
pub fn is_current(snapshot: &Snapshot, instance: &Instance) -> bool {
    let now = snapshot.services.get(&instance.service).and_then(|service| service.pool.get(&instance.id));
    now.is_some_and(|now| now.state.generation == instance.state.generation && now.takes_traffic())
}

/// A connection with what every one of ours gets: no delay, and probes of the kernel while nothing moves.
pub async fn dial(addr: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(addr)).await??;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY))?;
    Ok(stream)
}

/// Opens connections to one instance for Pingora.
#[derive(Debug)]
struct Dialler {
    line: Arc<Line>,
    timeout: Duration,
}

#[async_trait]
impl Connect for Dialler {
    async fn connect(&self, addr: &PingoraAddr) -> Result<Stream> {
        let Some(addr) = addr.as_inet() else { return Error::e_explain(ErrorType::InternalError, "not an IP address") };
        let stream = dial(*addr, self.timeout).await.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, "connecting to an instance", error)
        })?;
        let opened = self.line.opened(stream.as_raw_fd());
        let mut stream = Stream::from(stream);
        stream.tracer = Some(Tracer(Box::new(opened)));
        Ok(stream)
    }
}

fn peer_of(instance: &Instance, addr: SocketAddr, policy: &ServicePolicy, line: &Arc<Line>) -> HttpPeer {
    let protocol = instance.spec.protocol;
    let tls = policy.tls.as_ref();
    let sni = match (&instance.spec.address.host, tls.and_then(|t| t.server_name.as_deref())) {
        _ if !protocol.is_tls() => String::new(),
        (_, Some(name)) => name.to_owned(),
        (Host::Name(name), None) => name.to_string(),
        (Host::Ip(ip), None) => ip.to_string(),
    };
    let mut peer = HttpPeer::new(addr, protocol.is_tls(), sni);
    let mut hasher = DefaultHasher::new();
    (instance.state.generation, protocol).hash(&mut hasher);
    tls.map(|t| (t.verify, &t.server_name, &t.ca)).hash(&mut hasher);
    peer.group_key = hasher.finish();

    let options = &mut peer.options;
    let version = if protocol.is_http2() { 2 } else { 1 };
    options.set_http_version(version, version);
    options.max_h2_streams = STREAMS_MAX;
    options.h2_ping_interval = protocol.is_http2().then_some(PING_EVERY);
    options.total_connection_timeout = Some(policy.timeouts.connect);
    // Between two bytes; how long a response head may take is watched by `Line::close_overdue`.
    options.read_timeout = Some(policy.timeouts.idle);
    options.write_timeout = Some(policy.timeouts.idle);
    options.idle_timeout = Some(POOLED_IDLE);
    options.verify_cert = tls.is_none_or(|t| t.verify);
    options.verify_hostname = options.verify_cert;
    options.custom_l4 = Some(Arc::new(Dialler { line: line.clone(), timeout: policy.timeouts.connect }));
    peer
}

/// A pooled connection that nobody used for so long is closed; most servers wait at least as long.
const POOLED_IDLE: Duration = Duration::from_secs(60);
/// Requests at once on one HTTP/2 connection: what servers allow by default.
const STREAMS_MAX: usize = 100;
const PING_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
