//! The load generator: HTTP/1.1 on one thread, with as little of its own as that allows.
//!
//! Closed loop: every connection sends its next request when the last one is answered. Open loop (`--rate`): requests
//! are due at fixed times whatever the answers do, and one that had to wait for its connection counts from when it was
//! due, so a stall is not hidden by the requests it kept from being sent.

mod connection;
mod tally;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Outcome;
use crate::process::{cpu_time, micros_per};
pub use connection::{Connection, Request};
pub use tally::{Failure, Tally, percentile};

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// How long, unless `--requests` is said
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How many requests, whatever time they take
    #[arg(long)]
    requests: Option<u64>,
    /// Requests a second, at fixed times; without it each connection goes as fast as it is answered
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value = "GET")]
    method: String,
    #[arg(long, default_value = "/")]
    path: String,
    /// The Host field [default: the address]
    #[arg(long)]
    host: Option<String>,
    /// Bytes of body in each request
    #[arg(long, default_value_t = 0)]
    body: u64,
    /// A new connection for each request
    #[arg(long)]
    fresh: bool,
    /// Report the CPU time of this process, and its children, per request
    #[arg(long)]
    cpu_of: Option<u32>,
}

pub async fn run(flags: Flags) -> Outcome<()> {
    let host = flags.host.unwrap_or_else(|| flags.address.to_string());
    let plan = Plan {
        address: flags.address,
        request: Request::new(&flags.method, &host, &flags.path, flags.body, flags.fresh),
        connections: flags.connections,
        rate: flags.rate,
        end: flags.requests.map_or(End::After(flags.duration), End::Requests),
        fresh: flags.fresh,
    };
    let before = flags.cpu_of.map(cpu_time).transpose()?;
    let (began, tally) = (Instant::now(), drive(plan).await);
    println!("{}", tally.report(began.elapsed()));
    if let (Some(pid), Some(before)) = (flags.cpu_of, before) {
        println!("CPU of {pid}: {:.1} µs/request", micros_per(cpu_time(pid)? - before, tally.n_answered()));
    }
    Ok(())
}

#[derive(Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub request: Request,
    pub connections: u32,
    pub rate: Option<f64>,
    pub end: End,
    pub fresh: bool,
}

#[derive(Clone)]
pub enum End {
    After(Duration),
    Requests(u64),
    /// When the other half of [`End::told`] is dropped.
    Told(Weak<Running>),
}

impl End {
    /// Goes on as long as the first is kept.
    pub fn told() -> (Arc<Running>, Self) {
        let running = Arc::new(Running::default());
        let end = Self::Told(Arc::downgrade(&running));
        (running, end)
    }

    fn count(&self, what: impl FnOnce(&Running) -> &AtomicU64) {
        if let Self::Told(running) = self
            && let Some(running) = running.upgrade()
        {
            what(&running).fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What has become of the requests so far.
#[derive(Default)]
pub struct Running {
    n_answered: AtomicU64,
    n_failed: AtomicU64,
}

impl Running {
    pub fn n_answered(&self) -> u64 {
        self.n_answered.load(Ordering::Relaxed)
    }

    pub fn n_failed(&self) -> u64 {
        self.n_failed.load(Ordering::Relaxed)
    }
}

/// Carries the plan out; what became of every request.
pub async fn drive(plan: Plan) -> Tally {
    let began = Instant::now();
    let shared = Arc::new(Shared { began, n_begun: AtomicU64::new(0), plan });
    let mut connections = JoinSet::new();
    for _ in 0..shared.plan.connections {
        connections.spawn(keep_busy(shared.clone()));
    }
    let mut whole = Tally::default();
    while let Some(tally) = connections.join_next().await {
        whole.add(&tally.expect("no connection panics"));
    }
    whole
}

struct Shared {
    plan: Plan,
    began: Instant,
    n_begun: AtomicU64,
}

impl Shared {
    /// When the next request is due, if there is one.
    fn next_due(&self) -> Option<Instant> {
        let n = self.n_begun.fetch_add(1, Ordering::Relaxed);
        let due = match self.plan.rate {
            Some(rate) => self.began + Duration::from_secs_f64(n as f64 / rate),
            None => Instant::now(),
        };
        let goes_on = match &self.plan.end {
            End::After(duration) => due < self.began + *duration,
            End::Requests(requests) => n < *requests,
            End::Told(running) => running.strong_count() > 0,
        };
        goes_on.then_some(due)
    }
}

async fn keep_busy(shared: Arc<Shared>) -> Tally {
    let Plan { address, request, fresh, end, .. } = &shared.plan;
    let mut tally = Tally::default();
    let mut open = None;
    while let Some(due) = shared.next_due() {
        let was_late = Instant::now() > due;
        wait_for(due).await;
        // Our own timer's lateness is not the proxy's; that the connection was still busy is.
        let from = if was_late { due } else { Instant::now() };
        match one(&mut open, *address, request).await {
            Ok(()) => {
                tally.answered(from.elapsed());
                end.count(|running| &running.n_answered);
            }
            Err(failure) => {
                open = None;
                tally.failed(failure);
                end.count(|running| &running.n_failed);
                // Whoever refuses at once would otherwise be asked as fast as the processor can.
                sleep(AFTER_FAILURE).await;
            }
        }
        if *fresh {
            open = None;
        }
    }
    tally
}

async fn one(open: &mut Option<Connection>, address: SocketAddr, request: &Request) -> Result<(), Failure> {
    let connection = match open {
        Some(connection) => connection,
        None => open.insert(Connection::open(address).await?),
    };
    let answer = connection.exchange(request).await?;
    if !answer.keeps_alive {
        *open = None;
    }
    if (200..300).contains(&answer.status) { Ok(()) } else { Err(Failure::Status(answer.status)) }
}

/// The runtime's timer counts milliseconds; the rest is spent asking again and again.
async fn wait_for(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        } else if left > TIMER_STEP {
            sleep(left - TIMER_STEP).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

const TIMER_STEP: Duration = Duration::from_millis(2);
const AFTER_FAILURE: Duration = Duration::from_millis(1);
