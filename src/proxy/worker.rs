//! A worker: one thread with its own runtime, its own sockets, its own engines and its own connections to the instances.
//! Nothing that a request touches is shared with another worker but the snapshot and the counters of instances.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tracing::{debug, error, info};

use super::Shared;
use super::addresses::{Counted, TooMany};
use super::downstream::Met;
use super::introduction;
use super::limits::Limit;
use super::listening::Listening;
use super::pingora::{Peers, Pingora};
use super::serve::{LAST_WORDS, Serve, has_begun};
use super::sockets::OfWorker;
use super::stats::{OpenConnection, WorkerStats};
use super::upstream::Upstreams;

/// What a worker is given, before it has a thread.
#[derive(Clone)]
pub struct Worker {
    pub shared: Arc<Shared>,
    pub upstreams: Arc<Upstreams>,
    pub stats: Arc<WorkerStats>,
    /// In the order of the sockets.
    pub listening: Arc<[Arc<Listening>]>,
    /// Connections over all workers and listeners.
    pub room: Arc<Semaphore>,
    /// How long requests may take to finish, once the end has begun.
    pub drain: Duration,
}

impl Worker {
    /// Serves until `ending` turns true and then until the last connection is closed, or the drain is over.
    pub fn start(self, number: usize, sockets: OfWorker, ending: watch::Receiver<bool>) -> io::Result<Running> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (done, finished) = oneshot::channel();
        let run = move || {
            let stats = self.stats.clone();
            runtime.block_on(self.run(sockets, ending));
            stats.rest();
            // Whatever still runs has outlasted the drain; dropping the runtime ends it.
            drop(runtime);
            let _ = done.send(());
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(run)?;
        Ok(Running { thread, finished })
    }

    async fn run(self, sockets: OfWorker, mut ending: watch::Receiver<bool>) {
        let peers = Arc::new(Peers::new(self.upstreams.clone()));
        let serve = Serve {
            shared: self.shared.clone(),
            upstreams: self.upstreams.clone(),
            pingora: Pingora::new(&self.shared, &peers, ending.clone()),
            ending: ending.clone(),
        };
        let sweeper = tokio::spawn(sweep(self.clone(), peers));
        let loops: Vec<_> = sockets
            .into_iter()
            .map(|(listener, socket)| tokio::spawn(self.clone().accept(listener, socket, serve.clone(), ending.clone())))
            .collect();
        has_begun(&mut ending).await;
        for accepting in loops {
            let _ = accepting.await;
        }
        if timeout(self.drain, self.settled()).await.is_err() {
            info!(connections = self.open(), "Drain is over; closing what is left");
            if self.upstreams.take_leave() > 0 {
                let _ = timeout(LAST_WORDS, self.settled()).await;
            }
        }
        sweeper.abort();
    }

    async fn accept(self, listener: usize, socket: StdListener, serve: Serve, mut ending: watch::Receiver<bool>) {
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return error!(listener, %error, "A listening socket cannot be used"),
        };
        let listening = self.listening.get(listener).cloned().unwrap_or_default();
        let mut closing_at = None;
        let mut parting = self.shared.parting.clone();
        loop {
            let accepted = match closing_at {
                None => tokio::select! {
                    accepted = socket.accept() => accepted,
                    // What waits in the queue is for the process that has the same socket.
                    () = has_begun(&mut parting) => return,
                    () = has_begun(&mut ending) => {
                        // What waits in the queue by now is ours: the kernel has answered these clients for us.
                        closing_at = Some(Instant::now() + LAST_WORDS);
                        continue;
                    }
                },
                // Looked at first: under a flood there is always one more to accept.
                Some(at) if at <= Instant::now() => return,
                Some(at) => match timeout_at(at.into(), socket.accept()).await {
                    Ok(accepted) => accepted,
                    Err(_) => return,
                },
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the client is gone already. The former needs time.
                    debug!(listener, %error, "Nothing accepted");
                    sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            let Ok(local) = stream.local_addr() else { continue };
            // Where a proxy speaks first, it is its client that counts, once it is known.
            let client = if listening.introduced { Ok(None) } else { self.shared.count_client(peer, &self.stats) };
            let Ok(client) = client else { continue };
            let permit = match self.room.clone().try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    // One connection waits here and the others in the kernel's queue.
                    self.stats.limits.count(Limit::Connections);
                    let Ok(permit) = self.room.clone().acquire_owned().await else { return };
                    permit
                }
            };
            let met = Met { peer, local, listening: listening.clone(), stats: self.stats.clone() };
            // Counted from here on, or the end could overlook it.
            let counted = OpenConnection::begin(met.stats.clone(), listener);
            tokio::spawn(one(serve.clone(), stream, met, (counted, permit, client)));
        }
    }

    fn open(&self) -> u64 {
        self.stats.connections.iter().map(|n| n.load(std::sync::atomic::Ordering::Relaxed)).sum()
    }

    async fn settled(&self) {
        // A drain takes seconds; nobody has to be woken in the millisecond it ends.
        while self.open() > 0 {
            sleep(SETTLED_EVERY).await;
        }
    }
}

/// What a connection counts as.
type Held = (OpenConnection, OwnedSemaphorePermit, Option<Counted>);

/// `held` goes with the connection.
async fn one(mut serve: Serve, mut stream: TcpStream, mut met: Met, mut held: Held) {
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(peer = %met.peer, %error, "A connection broke before its first byte");
    }
    if met.listening.introduced {
        // On the heap: most listeners never need it.
        match Box::pin(introduction::hear(&mut stream, met, &serve.shared, &mut serve.ending)).await {
            Some(named) => met = named,
            None => return,
        }
        match serve.shared.count_client(met.peer, &met.stats) {
            Ok(client) => held.2 = client,
            Err(TooMany) => return,
        }
    }
    serve.connection(stream, met).await;
    drop(held);
}

/// What time does to the connections to the instances.
async fn sweep(worker: Worker, peers: Arc<Peers>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 1_u32.. {
        ticks.tick().await;
        worker.stats.beat();
        let cut = worker.upstreams.sweep(&worker.shared.live.load(), Instant::now());
        worker.stats.count_cut(cut);
        if round % FORGET_EVERY == 0 {
            worker.upstreams.forget();
            peers.forget();
        }
    }
}

/// A worker at work.
#[derive(Debug)]
pub struct Running {
    thread: JoinHandle<()>,
    finished: oneshot::Receiver<()>,
}

impl Running {
    pub async fn finished(self) {
        // An error is a panic of the thread, which `join` tells.
        let _ = self.finished.await;
        if self.thread.join().is_err() {
            error!("A worker panicked");
        }
    }
}

const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
const SETTLED_EVERY: Duration = Duration::from_millis(10);
/// How late a response deadline may be noticed.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// Sweeps: ten minutes.
const FORGET_EVERY: u32 = 6000;
