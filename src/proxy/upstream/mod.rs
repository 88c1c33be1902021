//! How one worker reaches the instances: a line to each, which knows every connection that an engine has opened to it.
//!
//! An engine pools as it likes; what all of them share is here: connections are of one life of an instance and never
//! of its address alone, they close when it leaves or its drain is over, and each is counted until it is gone.

mod line;
mod secure;
mod stream;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub use line::{Claim, Line, Opened};
pub use secure::{Secure, connect, note_no_tls};
pub use stream::Stream;
pub use wire::Wire;

use crate::catalog::Snapshot;
use crate::model::{InstanceSpec, ServicePolicy};
use crate::pool::{Instance, Moment};
use crate::trust::Trusts;

#[derive(Debug, Default)]
pub struct Upstreams {
    trusts: Arc<Trusts>,
    /// By generation.
    entries: Mutex<HashMap<u64, Entry, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Entry {
    line: Arc<Line>,
    /// Lines under another trust than now, as long as something runs on them.
    former: Vec<Arc<Line>>,
    instance: Arc<Instance>,
    spec: Arc<InstanceSpec>,
    policy: Arc<ServicePolicy>,
    /// The probe that could not connect, after which unused connections were closed.
    doubted: Option<Moment>,
}

impl Upstreams {
    pub fn new(trusts: Arc<Trusts>) -> Self {
        Self { trusts, entries: Mutex::default() }
    }

    /// The line to this life of the instance, under the policy in force. Where TLS is spoken in another way than before, it
    /// is another line.
    pub fn line(&self, instance: &Arc<Instance>, policy: &Arc<ServicePolicy>) -> Arc<Line> {
        let mut entries = self.lock();
        let secure = || Secure::of(&instance.spec, policy, &self.trusts);
        let new = || Entry {
            line: Arc::new(Line::new(secure())),
            former: Vec::new(),
            instance: instance.clone(),
            spec: instance.spec.clone(),
            policy: policy.clone(),
            doubted: None,
        };
        let entry = entries.entry(instance.state.generation).or_insert_with(new);
        if !Arc::ptr_eq(&entry.policy, policy) || !Arc::ptr_eq(&entry.spec, &instance.spec) {
            entry.policy = policy.clone();
            entry.spec = instance.spec.clone();
            entry.turn_to(secure());
        }
        entry.line.clone()
    }

    pub fn knows(&self, generation: u64) -> bool {
        self.lock().contains_key(&generation)
    }

    /// Instances that take no new requests from now on: their idle connections close, busy ones have until the end of
    /// the drain.
    pub fn evict(&self, generations: &[u64], now: Instant) {
        let entries = self.lock();
        generations.iter().filter_map(|generation| entries.get(generation)).for_each(|entry| entry.leave(now));
    }

    /// What time does to connections; called at an even pace. Says how many a drain has cut.
    pub fn sweep(&self, snapshot: &Snapshot, now: Instant) -> usize {
        let mut entries = self.lock();
        let mut cut = 0;
        for entry in entries.values_mut() {
            entry.doubt();
            let Entry { line, former, instance, policy, .. } = entry;
            former.retain(|line| line.is_busy());
            former.iter().for_each(|line| line.close_unused());
            // Health makes no snapshot, so nobody evicts an instance that tells probes that it drains.
            let says_draining = instance.says_draining(policy);
            let is_current = (says_draining || line.has_left()) && is_current(snapshot, instance);
            for line in former.iter().chain([&*line]) {
                line.close_overdue(now);
                line.close_idle(now, POOLED_IDLE);
                if says_draining {
                    line.leave(now);
                }
                if is_current {
                    line.come_back();
                } else if line.has_left() {
                    cut += line.close_drained(now, policy.timeouts.drain);
                }
            }
        }
        cut
    }

    /// The end of the process: whoever has a last word to its instance and its client says it. Says how many.
    pub fn take_leave(&self) -> usize {
        self.lock().values().flat_map(|entry| entry.former.iter().chain([&entry.line])).map(|line| line.take_leave()).sum()
    }

    /// Drops what was kept of instances that nobody has asked for since the last call.
    pub fn forget(&self) {
        self.lock().retain(|_, entry| !entry.line.forget() || !entry.former.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry, foldhash::fast::RandomState>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Requests that run keep what they have.
    fn turn_to(&mut self, secure: Option<Secure>) {
        if self.line.secure == secure {
            return;
        }
        let line = match self.former.iter().position(|line| line.secure == secure) {
            Some(at) => self.former.swap_remove(at),
            None => Arc::new(Line::new(secure)),
        };
        let before = std::mem::replace(&mut self.line, line);
        before.close_unused();
        self.former.push(before);
    }

    /// A probe that cannot connect means that the way there may be gone, or our own address; then nobody would ever answer
    /// on the connections we keep, nor refuse. Once for each such probe: those opened since have shown that they work.
    fn doubt(&mut self) {
        let health = &self.instance.state.health;
        let probed_at = health.probed_at();
        if health.is_unreachable() && self.doubted != probed_at {
            self.doubted = probed_at;
            self.line.close_unused();
        }
    }

    fn leave(&self, now: Instant) {
        self.former.iter().chain([&self.line]).for_each(|line| line.leave(now));
    }
}

/// Whether this life of the instance still takes requests.
pub fn is_current(snapshot: &Snapshot, instance: &Instance) -> bool {
    let Some(service) = snapshot.services.get(&instance.service) else { return false };
    let Some(now) = service.pool.get(&instance.id) else { return false };
    now.state.generation == instance.state.generation && now.takes_traffic() && !now.says_draining(&service.policy)
}

/// A connection with what every one of ours gets: no delay, and probes of the kernel while nothing moves. `first` is said
/// on it before anybody else says anything.
pub async fn dial(addr: SocketAddr, timeout: Duration, first: &[u8]) -> io::Result<TcpStream> {
    let mut stream = tokio::time::timeout(timeout, TcpStream::connect(addr)).await??;
    stream.set_nodelay(true)?;
    // A few dozen bytes, for which the buffer of a new socket has room.
    stream.write_all(first).await?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY))?;
    Ok(stream)
}

/// A pooled connection that nobody used for so long is closed; most servers wait at least as long.
pub const POOLED_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
