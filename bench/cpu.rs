//! CPU time per request, proxy against proxy: the figure that survives a noisy machine.
//!
//! The proxies run side by side on one core, idle but for the round that is theirs; this process, with the client
//! and the upstream in it, keeps to another core. Rounds alternate, so what disturbs the machine disturbs all.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use crate::Outcome;
use crate::load::{End, Plan, Request, Tally, drive};
use crate::process::{self, cpu_time, micros_per, pin_ourselves};
use crate::proxies::{Program, Proxy};
use crate::respond;

#[derive(clap::Args)]
pub struct Flags {
    /// Which to measure; the first is what the others are compared with
    #[arg(default_values = ["nginx", "pointsman"])]
    proxies: Vec<Kind>,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Of each round
    #[arg(long, default_value = "4s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Requests a second instead of as many as possible
    #[arg(long)]
    rate: Option<f64>,
    /// A new connection for each request
    #[arg(long)]
    fresh: bool,
    /// Bytes of each answer
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// The core of the proxies
    #[arg(long, default_value_t = 1)]
    core: u32,
    /// The core of client and upstream
    #[arg(long, default_value_t = 0)]
    our_core: u32,
    #[command(flatten)]
    program: Program,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Nginx,
    Pointsman,
}

struct Contender {
    kind: Kind,
    proxy: Proxy,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    cpu_us: f64,
    per_second: f64,
    p50: Duration,
    p99: Duration,
    n_failed: u64,
}

pub async fn run(flags: Flags) -> Outcome<()> {
    pin_ourselves(flags.our_core)?;
    let upstream = respond::start(SocketAddr::from(([127, 0, 0, 1], 0)), flags.size).await?;
    let mut contenders = Vec::new();
    for kind in &flags.proxies {
        let mut proxy = match kind {
            Kind::Nginx => Proxy::nginx(upstream, flags.core, None)?,
            Kind::Pointsman => Proxy::pointsman_on(&flags.program.pointsman, upstream, flags.core, None)?,
        };
        proxy.answers(proxy.address, "/", 200).await?;
        drive(plan(&flags, proxy.address, WARM_UP)).await;
        contenders.push(Contender { kind: *kind, proxy, rounds: Vec::new() });
    }
    for _ in 0..flags.rounds {
        for contender in &mut contenders {
            let pid = contender.proxy.process.id();
            let before = cpu_time(pid)?;
            let tally = drive(plan(&flags, contender.proxy.address, flags.duration)).await;
            contender.rounds.push(Round::new(&tally, cpu_time(pid)? - before, flags.duration));
        }
    }
    report(&contenders);
    Ok(())
}

impl Round {
    fn new(tally: &Tally, cpu: Duration, took: Duration) -> Self {
        Self {
            cpu_us: micros_per(cpu, tally.n_answered()),
            per_second: tally.n_answered() as f64 / took.as_secs_f64(),
            p50: tally.latency(0.5),
            p99: tally.latency(0.99),
            n_failed: tally.n_failed(),
        }
    }
}

fn plan(flags: &Flags, address: SocketAddr, duration: Duration) -> Plan {
    Plan {
        address,
        request: Request::new("GET", "localhost", "/", 0, flags.fresh),
        connections: flags.connections,
        rate: flags.rate,
        end: End::After(duration),
        fresh: flags.fresh,
    }
}

fn report(contenders: &[Contender]) {
    println!("| proxy | CPU µs/request (all rounds) | ratio | requests/s | p50 | p99 | failed |\n|---|---|---|---|---|---|---|");
    let first = contenders.first().map_or(0.0, |first| median(&first.rounds, |round| round.cpu_us));
    for Contender { kind, rounds, .. } in contenders {
        let cpu = median(rounds, |round| round.cpu_us);
        let each: Vec<_> = rounds.iter().map(|round| format!("{:.1}", round.cpu_us)).collect();
        println!(
            "| {kind:?} | {cpu:.1} ({}) | {:.2} | {:.0} | {:.2?} | {:.2?} | {} |",
            each.join(" "),
            cpu / first,
            median(rounds, |round| round.per_second),
            Duration::from_secs_f64(median(rounds, |round| round.p50.as_secs_f64())),
            Duration::from_secs_f64(median(rounds, |round| round.p99.as_secs_f64())),
            rounds.iter().map(|round| round.n_failed).sum::<u64>(),
        );
    }
}

fn median(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    process::median(rounds.iter().map(figure))
}

const WARM_UP: Duration = Duration::from_secs(1);
