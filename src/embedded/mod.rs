//! The embedded registry: an etcd v3 service inside the process, for one machine.
//!
//! It is what `pointsman` uses when nobody names an etcd. `etcdctl`, `pointsman register`, the reflector and any other
//! etcd v3 client work with it unchanged: answers, limits, codes and texts of errors are etcd's, and a test runs the same
//! random operations against both and compares.
//!
//! With `etcdctl` of 3.4 name the address without a scheme (`--endpoints 127.0.0.1:2379`, as is its default): with
//! `http://` its `endpoint status` sends an `:authority` our HTTP/2 refuses as malformed.
//!
//! # How a write goes
//!
//! 1. `rpc/kv.rs` reads the message; `rpc/parse.rs` makes an operation of it, or refuses in etcd's words.
//! 2. `Shared::write` takes the one lock; `State` checks leases and space, `txn.rs` plans, `Keyspace::change` writes: a new
//!    version of the key, an entry in the log, the next revision.
//! 3. `Watchers::note` wakes the streams concerned. Each reads the log by itself, so nobody waits for a slow one.
//! 4. The saving thread (`shared.rs`) writes what has gathered in one `redb` commit (`journal.rs`).
//! 5. The client is answered.
//!
//! # What is kept
//!
//! With a directory: live keys with their revisions and versions, leases, identity. A write that was answered is on disk;
//! that costs one `fsync` for all that wait at the time, as in etcd, so there is no faster and less safe way beside it.
//! **A `kill -9` or a power cut may lose writes that had not been answered**, also ones a watcher already saw; revisions then
//! go on above anything that was ever shown (up to 10,000 are skipped), watches from before are cancelled as compacted and
//! clients list again. After an orderly stop revisions go on exactly where they were. Leases begin their full time anew at
//! every start, as nobody could renew them. History does not outlive the process.
//!
//! Without a directory everything is gone with the process, and the next one has another cluster id.
//!
//! # What is bounded
//!
//! History: the last 50,000 revisions, fewer when keys and history pass 1 GiB together; a reader or watcher that wants older
//! ones is told `compacted`, as by etcd with auto-compaction. Live keys: 1 GiB, then `database space exceeded`. Requests:
//! 1.5 MiB, 128 operations in a transaction. Leases: a million. Watches on one stream: 10,000. Answers a watcher has not read:
//! four messages, the rest waits in history. Leases that ended: 1,000 revoked at a time.
//!
//! # What is deliberately absent
//!
//! - Other members, raft, elections: there is one process, and when it is down so is the registry. A cluster uses etcd.
//! - Users, roles and TLS: bind it to loopback.
//! - Snapshots, hashes, `RangeStream`, the Lock and Election services (`etcdctl lock` and `elect` work without), and the
//!   HTTP/JSON gateway with its `/health`.
//!
//! # Invariants
//!
//! - The core (`keyspace`, `txn`, `lease`, `watchers`, `state`) has no clock, no socket, no disk and no `async`.
//! - A revision that was shown to anybody is never given out again, also not by the next process.
//! - All events of one revision reach a watcher in one batch, batches in order, none twice, none left out unless it is told
//!   `compacted`.

mod fault;
mod journal;
mod keyspace;
mod kv;
mod lease;
mod ops;
mod rpc;
mod shared;
mod state;
mod txn;
mod watchers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::{info, warn};

pub use journal::OpenError;
use journal::{Identity, Journal};
pub use keyspace::Limits;
use rpc::Doorway;
use shared::Shared;
use state::State;

#[derive(Clone, Debug)]
pub struct Options {
    /// Where `registry.redb` lies; made if missing. `None`: nothing is kept.
    pub data: Option<PathBuf>,
    /// How often a watch that asked for progress notifications, and saw nothing else, is told the revision.
    pub progress_every: Duration,
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        // Ten minutes is etcd's.
        Self { data: None, progress_every: Duration::from_secs(600), limits: Limits::default() }
    }
}

/// An open registry that nobody can talk to yet.
pub struct Registry {
    shared: Arc<Shared>,
    progress_every: Duration,
}

impl Registry {
    /// Reads what an earlier process left, or begins with nothing.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let (journal, identity, saved) = match &options.data {
            None => (None, Identity::random(), None),
            Some(dir) => {
                let (journal, identity, saved) = Journal::open(dir)?;
                (Some(journal), identity, saved)
            }
        };
        let state = State::new(saved, options.limits, Instant::now());
        info!(
            revision = state.revision(),
            file = journal.as_ref().map(|journal| tracing::field::display(journal.path().display())),
            "Embedded registry opened: one process, not for high availability"
        );
        Ok(Self {
            shared: Arc::new(Shared::new(state, identity, journal)),
            progress_every: options.progress_every.max(PROGRESS_EVERY_MIN),
        })
    }

    /// Answers clients until `shutdown` turns true, then saves everything. Dropping the future instead is an unclean stop.
    pub async fn serve(self, listener: TcpListener, shutdown: watch::Receiver<bool>) -> Result<(), tonic::transport::Error> {
        let doorway = Doorway {
            shared: self.shared.clone(),
            client_url: client_url(&listener).into(),
            progress_every: self.progress_every,
            stopping: shutdown.clone(),
        };
        let serving = Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .http2_keepalive_interval(Some(PING_AFTER))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .add_routes(doorway.routes())
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), turned_true(shutdown.clone()));
        let last_requests = async {
            turned_true(shutdown.clone()).await;
            tokio::time::sleep(LAST_REQUESTS).await;
        };
        let served = tokio::select! {
            served = serving => served,
            () = last_requests => Ok(()),
            () = expire_leases(&self.shared) => Ok(()),
        };
        let shared = self.shared;
        if let Err(panicked) = tokio::task::spawn_blocking(move || shared.close()).await {
            warn!(%panicked, "The embedded registry could not be closed in order");
        }
        served
    }
}

async fn turned_true(mut shutdown: watch::Receiver<bool>) {
    // An error means that nobody is left who could say so.
    let _ = shutdown.wait_for(|shutdown| *shutdown).await;
}

/// Never ends.
async fn expire_leases(shared: &Shared) {
    let mut ticks = interval(EXPIRE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = tokio::time::Instant::now();
    loop {
        let now = ticks.tick().await;
        let pause = now.duration_since(last).saturating_sub(EXPIRE_EVERY);
        let late = if pause > PAUSE_NOTICED { pause } else { Duration::ZERO };
        last = now;
        if !late.is_zero() {
            warn!(paused_ms = late.as_millis(), "The process stood still; leases are extended by that time");
        }
        let n_expired = shared.lock().expire(now.into_std(), late);
        if n_expired > 0 {
            shared.save_soon();
        }
    }
}

/// What clients are told to dial: for an address that means every interface, this machine.
fn client_url(listener: &TcpListener) -> String {
    let Ok(mut address) = listener.local_addr() else { return String::new() };
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => {}
    }
    format!("http://{address}")
}

/// Anything shorter would be all a stream says.
const PROGRESS_EVERY_MIN: Duration = Duration::from_millis(10);
/// Requests and streams at once on one connection; a client that renews many leases has a stream for each.
const STREAMS_PER_CONNECTION_MAX: u32 = 10_000;
/// A client whose machine vanished is noticed after these two, and its watches are freed.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls under way may take after the stop.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// How late a lease may end.
const EXPIRE_EVERY: Duration = Duration::from_millis(200);
/// A pause of the whole process that leases are not charged for.
const PAUSE_NOTICED: Duration = Duration::from_secs(1);
