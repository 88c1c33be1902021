//! What one change of the registry costs the proxy: its CPU time over a steady stream of changes without any
//! traffic, less what it takes in the same time without changes.

use std::time::Duration;

use tokio::time::{interval, sleep};

use crate::Outcome;
use crate::process::{cpu_time, micros_per};
use crate::proxies::{Program, Proxy};
use crate::registry::{Etcd, instance, loopback, policy, route};

#[derive(clap::Args)]
pub struct Flags {
    /// Registered, ten to a service
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    instances: Vec<u32>,
    /// Changes a second, each of one instance's weight
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// With changes, and as long without
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    program: Program,
}

pub async fn run(flags: Flags) -> Outcome<()> {
    println!("| instances | CPU µs per change | CPU ms/s without changes |\n|---|---|---|");
    for n in &flags.instances {
        let mut etcd = Etcd::start().await?;
        let policies = (0..n / EACH).map(|service| policy(&name(service)));
        let instances = (0..*n).map(|id| weighing(id, 100));
        let revision = etcd.fill(policies.chain(instances).chain([route(&name(0))])).await?;
        let mut proxy = Proxy::pointsman_with(&flags.program.pointsman, &etcd.url, "")?;
        proxy.has_applied(revision).await?;
        sleep(SETTLE).await;

        let pid = proxy.process.id();
        let before = cpu_time(pid)?;
        sleep(flags.duration).await;
        let idle = cpu_time(pid)? - before;

        let before = cpu_time(pid)?;
        let n_changes = (flags.duration.as_secs_f64() * f64::from(flags.rate)) as u32;
        let mut due = interval(flags.duration / n_changes.max(1));
        let mut revision = revision;
        for change in 0..n_changes {
            due.tick().await;
            let (key, value) = weighing(fastrand::u32(0..*n), 1 + (change % 100) as u16);
            let put = etcd.client.put(key, value, None).await?;
            revision = put.header().map_or(revision, |header| header.revision());
        }
        proxy.has_applied(revision).await?;
        let busy = cpu_time(pid)? - before;
        let per_change = micros_per(busy.saturating_sub(idle), n_changes.into());
        println!("| {n} | {per_change:.0} | {:.1} |", idle.as_secs_f64() * 1e3 / flags.duration.as_secs_f64());
    }
    Ok(())
}

fn weighing(id: u32, weight: u16) -> (String, String) {
    instance(&name(id / EACH), id % EACH, &format!("{}:8080", loopback(id)), weight)
}

fn name(service: u32) -> String {
    format!("service-{service}")
}

const EACH: u32 = 10;
/// What a start leaves to do is not part of a change.
const SETTLE: Duration = Duration::from_secs(2);
