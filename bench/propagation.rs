//! From a put in etcd to the first request that the new instance serves, and from its deletion to the last one.
//!
//! All `n` instances belong to one service and have weight 0, which is the hardest case (the pool that changes is the
//! large one) and the clearest: the new instance is the only one that may get a request. One keep-alive connection
//! asks back-to-back, so the resolution is one round trip.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::load::{Connection, Request, percentile};
use crate::proxies::{Program, Proxy};
use crate::registry::{Etcd, instance, instance_key, loopback, policy, route};
use crate::respond;

#[derive(clap::Args)]
pub struct Flags {
    /// Registered beforehand
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 5_000])]
    instances: Vec<u32>,
    /// How often an instance comes and goes
    #[arg(long, default_value_t = 100)]
    times: u32,
    #[command(flatten)]
    program: Program,
}

pub async fn run(flags: Flags) -> Outcome<()> {
    println!(
        "| instances | put sent → first request, p50 / p99 | put answered → first request | delete answered → last request |"
    );
    println!("|---|---|---|---|");
    for n in &flags.instances {
        let mut churn = Churn::start(*n, &flags.program).await?;
        for time in 0..flags.times {
            churn.come_and_go(n + time).await?;
        }
        let Churn { from_sent, from_answered, until_last, .. } = churn;
        println!("| {n} | {} | {} | {} |", row(&from_sent), row(&from_answered), row(&until_last));
    }
    Ok(())
}

struct Churn {
    etcd: Etcd,
    port: u16,
    connection: Connection,
    request: Request,
    from_sent: Vec<Duration>,
    from_answered: Vec<Duration>,
    until_last: Vec<Duration>,
    _proxy: Proxy,
}

impl Churn {
    async fn start(n: u32, program: &Program) -> Outcome<Self> {
        let port = respond::start(SocketAddr::from(([0, 0, 0, 0], 0)), 64).await?.port();
        let mut etcd = Etcd::start().await?;
        let idle = (0..n).map(|id| instance(SERVICE, id, &format!("{}:{port}", loopback(id)), 0));
        let revision = etcd.fill([policy(SERVICE), route(SERVICE)].into_iter().chain(idle)).await?;
        let mut proxy = Proxy::pointsman_with(&program.pointsman, &etcd.url, "")?;
        proxy.has_applied(revision).await?;
        let connection = Connection::open(proxy.address).await?;
        let request = Request::get("localhost", "/");
        let (from_sent, from_answered, until_last) = Default::default();
        Ok(Self { etcd, port, connection, request, from_sent, from_answered, until_last, _proxy: proxy })
    }

    async fn come_and_go(&mut self, id: u32) -> Outcome<()> {
        let address = format!("{}:{}", loopback(id), self.port);
        let (key, value) = instance(SERVICE, id, &address, 100);
        let mut kv = self.etcd.client.kv_client();
        let sent = Instant::now();
        let put = tokio::spawn(async move { kv.put(key, value, None).await.map(|_| Instant::now()) });
        let served = loop {
            if self.served_by().await?.as_deref() == Some(&address) {
                break Instant::now();
            }
            bounded(sent)?;
        };
        let answered = put.await??;
        self.from_sent.push(served - sent);
        self.from_answered.push(served.saturating_duration_since(answered));
        self.settle().await?;

        let mut kv = self.etcd.client.kv_client();
        let delete = tokio::spawn(async move { kv.delete(instance_key(SERVICE, id), None).await.map(|_| Instant::now()) });
        let last = self.last_from(&address).await?;
        self.until_last.push(last.saturating_duration_since(delete.await??));
        Ok(())
    }

    /// Asks on for a while, so that a change is not merged with the one before it.
    async fn settle(&mut self) -> Outcome<()> {
        let until = Instant::now() + QUIET.mul_f64(0.75 + fastrand::f64() / 2.0);
        while Instant::now() < until {
            self.served_by().await?;
        }
        Ok(())
    }

    /// Asks on until an address has been quiet; when its last answer came.
    async fn last_from(&mut self, address: &str) -> Outcome<Instant> {
        let began = Instant::now();
        let mut last = began;
        while last.elapsed() < QUIET {
            if self.served_by().await?.as_deref() == Some(address) {
                last = Instant::now();
            }
            bounded(began)?;
        }
        Ok(last)
    }

    /// The address that the next request reaches; none while there is no instance for it.
    async fn served_by(&mut self) -> Outcome<Option<String>> {
        match self.connection.exchange(&self.request).await?.status {
            200 => Ok(self.connection.field(respond::ADDRESS).map(str::to_owned)),
            503 => Ok(None),
            status => Err(format!("a request was answered {status}").into()),
        }
    }
}

fn bounded(since: Instant) -> Outcome<()> {
    if since.elapsed() > CHANGE_MAX { Err("the change never reached the proxy".into()) } else { Ok(()) }
}

fn row(times: &[Duration]) -> String {
    format!("{:.2?} / {:.2?}", percentile(times, 0.5), percentile(times, 0.99))
}

const SERVICE: &str = "churn";
/// Longer than changes are merged for.
const QUIET: Duration = Duration::from_millis(200);
/// A change that takes longer has been lost.
const CHANGE_MAX: Duration = Duration::from_secs(10);
