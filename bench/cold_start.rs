//! From the start of the proxy until it routes to everything in the registry, and the memory that takes.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::load::percentile;
use crate::proxies::{Program, Proxy};
use crate::registry::{Etcd, instance, loopback, policy, route};

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// Instances of each service
    #[arg(long, default_value_t = 10)]
    each: u32,
    /// How often the proxy is started
    #[arg(long, default_value_t = 3)]
    times: u32,
    #[command(flatten)]
    program: Program,
}

pub async fn run(flags: Flags) -> Outcome<()> {
    let mut etcd = Etcd::start().await?;
    let instances = (0..flags.services * flags.each).map(|n| {
        let service = format!("service-{}", n / flags.each);
        instance(&service, n % flags.each, &format!("{}:8080", loopback(n)), 100)
    });
    let policies = (0..flags.services).map(|n| policy(&format!("service-{n}")));
    let revision = etcd.fill(policies.chain(instances).chain([route("service-0")])).await?;

    let (mut times, mut peak) = (Vec::new(), 0.0_f64);
    for _ in 0..flags.times {
        let began = Instant::now();
        let mut proxy = Proxy::pointsman_with(&flags.program.pointsman, &etcd.url, "")?;
        proxy.has_applied(revision).await?;
        times.push(began.elapsed());
        // What begins with the first snapshot is a part of the memory it takes.
        tokio::time::sleep(SETTLE).await;
        peak = peak.max(proxy.process.peak_memory_mib()?);
    }
    println!("{} instances in {} services, {} starts", flags.services * flags.each, flags.services, flags.times);
    println!(
        "ready with revision {revision} after {:.2?} (median), {:.2?} (worst)",
        percentile(&times, 0.5),
        percentile(&times, 1.0)
    );
    println!("peak memory {peak:.0} MiB");
    Ok(())
}

const SETTLE: Duration = Duration::from_secs(2);
