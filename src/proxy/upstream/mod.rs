//! How one worker reaches the instances: a line to each, which knows every connection that an engine has opened to it.
//!
//! An engine pools as it likes; what all of them share is here: connections are of one life of an instance and never
//! of its address alone, they close when it leaves or its drain is over, and each is counted until it is gone.

mod line;
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
pub use wire::Wire;

use crate::catalog::Snapshot;
use crate::model::ServicePolicy;
use crate::pool::Instance;

#[derive(Debug, Default)]
pub struct Upstreams {
    /// By generation.
    entries: Mutex<HashMap<u64, Entry, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Entry {
    line: Arc<Line>,
    instance: Arc<Instance>,
    policy: Arc<ServicePolicy>,
}

impl Upstreams {
    /// The line to this life of the instance, under the policy in force.
    pub fn line(&self, instance: &Arc<Instance>, policy: &Arc<ServicePolicy>) -> Arc<Line> {
        let mut entries = self.lock();
        let new = || Entry { line: Arc::default(), instance: instance.clone(), policy: policy.clone() };
        let entry = entries.entry(instance.state.generation).or_insert_with(new);
        if !Arc::ptr_eq(&entry.policy, policy) {
            entry.policy = policy.clone();
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
        generations.iter().filter_map(|generation| entries.get(generation)).for_each(|entry| entry.line.leave(now));
    }

    /// What time does to connections; called at an even pace. Says how many a drain has cut.
    pub fn sweep(&self, snapshot: &Snapshot, now: Instant) -> usize {
        let entries = self.lock();
        let mut cut = 0;
        for Entry { line, instance, policy } in entries.values() {
            line.close_overdue(now);
            line.close_idle(now, POOLED_IDLE);
            // Health makes no snapshot, so nobody evicts an instance that tells probes that it drains.
            if instance.says_draining(policy) {
                line.leave(now);
            }
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

    /// The end of the process: whoever has a last word to its instance and its client says it. Says how many.
    pub fn take_leave(&self) -> usize {
        self.lock().values().map(|entry| entry.line.take_leave()).sum()
    }

    /// Drops what was kept of instances that nobody has asked for since the last call.
    pub fn forget(&self) {
        self.lock().retain(|_, entry| !entry.line.forget());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry, foldhash::fast::RandomState>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
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
