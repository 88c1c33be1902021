//! What probing costs: the proxy's CPU share and how punctual the probes are, with all instances answering, and what
//! requests that pass meanwhile notice of it.
//!
//! One wildcard socket plays every instance: each has a loopback address of its own, so each is a check of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use crate::Outcome;
use crate::load::{End, Plan, Request, drive};
use crate::process::cpu_time;
use crate::proxies::{Program, Proxy};
use crate::registry::{Etcd, instance, loopback, route};
use crate::respond;

#[derive(clap::Args)]
pub struct Flags {
    /// Ten to a service
    #[arg(long, default_value_t = 10_000)]
    instances: u32,
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    interval: Duration,
    #[arg(long, value_delimiter = ',', default_values = ["none", "tcp", "http"])]
    kinds: Vec<String>,
    /// Requests a second to one more service, while the probes go on
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Of each kind, once with requests and once without
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    program: Program,
}

/// What the proxy has counted so far.
struct Counts {
    n_probes: f64,
    /// Upper bounds in seconds and how many lay below.
    lateness: Vec<(f64, f64)>,
}

pub async fn run(flags: Flags) -> Outcome<()> {
    println!(
        "| probes | CPU, no requests | probes/s | late p50 / p99 | requests p50 / p99 | failed |\n|---|---|---|---|---|---|"
    );
    for kind in &flags.kinds {
        measure(&flags, kind).await?;
    }
    Ok(())
}

async fn measure(flags: &Flags, kind: &str) -> Outcome<()> {
    let port = respond::start(SocketAddr::from(([0, 0, 0, 0], 0)), 64).await?.port();
    let mut etcd = Etcd::start().await?;
    let policies = (0..flags.instances / EACH).map(|service| policy(flags, kind, service));
    let instances =
        (0..flags.instances).map(|id| instance(&name(id / EACH), id % EACH, &format!("{}:{port}", loopback(id)), 100));
    let revision = etcd.fill(policies.chain(instances).chain([route(&name(0))])).await?;
    let mut proxy = Proxy::pointsman_with(&flags.program.pointsman, &etcd.url, "")?;
    proxy.has_applied(revision).await?;
    // The first round goes out at once; what is asked about is what follows it.
    sleep(flags.interval * 2).await;

    let (pid, before) = (proxy.process.id(), counts(&mut proxy).await?);
    let cpu_before = cpu_time(pid)?;
    sleep(flags.duration).await;
    let (cpu, after) = (cpu_time(pid)? - cpu_before, counts(&mut proxy).await?);
    let plan = Plan {
        address: proxy.address,
        request: Request::get("localhost", "/"),
        connections: 16,
        rate: Some(flags.rate),
        end: End::After(flags.duration),
        fresh: false,
    };
    let tally = drive(plan).await;
    let seconds = flags.duration.as_secs_f64();
    println!(
        "| {kind} | {:.1} % | {:.0} | {} / {} | {:.2?} / {:.2?} | {} |",
        100.0 * cpu.as_secs_f64() / seconds,
        (after.n_probes - before.n_probes) / seconds,
        late(&before, &after, 0.5),
        late(&before, &after, 0.99),
        tally.latency(0.5),
        tally.latency(0.99),
        tally.n_failed(),
    );
    Ok(())
}

async fn counts(proxy: &mut Proxy) -> Outcome<Counts> {
    let admin = proxy.admin.ok_or("only ours has an admin address")?;
    let text = String::from_utf8(proxy.answers(admin, "/metrics", 200).await?)?;
    let values = |name: &str| {
        let samples = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        samples.filter_map(|(labels, value)| Some((labels.to_owned(), value.parse::<f64>().ok()?))).collect::<Vec<_>>()
    };
    let bound = |labels: &str| labels.split('"').nth(1)?.replace("+Inf", "inf").parse().ok();
    Ok(Counts {
        n_probes: values("pointsman_probes_total{").iter().map(|(_, n)| n).sum(),
        lateness: values("pointsman_probe_lateness_seconds_bucket{").iter().filter_map(|(l, n)| Some((bound(l)?, *n))).collect(),
    })
}

/// The least bound below which that share of the probes between the two began.
fn late(before: &Counts, after: &Counts, share: f64) -> String {
    let n = |at: usize| after.lateness[at].1 - before.lateness.get(at).map_or(0.0, |(_, n)| *n);
    let Some(last) = after.lateness.len().checked_sub(1).filter(|last| n(*last) > 0.0) else { return "-".to_owned() };
    let found = (0..=last).find(|at| n(*at) >= share * n(last)).unwrap_or(last);
    format!("≤ {:?}", Duration::try_from_secs_f64(after.lateness[found].0).unwrap_or(Duration::MAX))
}

fn policy(flags: &Flags, kind: &str, service: u32) -> (String, String) {
    let interval = humantime::format_duration(flags.interval).to_string();
    let probe = match kind {
        "http" => serde_json::json!({ "kind": kind, "path": "/healthz", "interval": interval }),
        _ => serde_json::json!({ "kind": kind, "interval": interval }),
    };
    let policy = serde_json::json!({ "v": 1, "probe": probe, "slow_start": "0s" });
    (format!("/pointsman/services/{}", name(service)), policy.to_string())
}

fn name(service: u32) -> String {
    format!("service-{service}")
}

const EACH: u32 = 10;
