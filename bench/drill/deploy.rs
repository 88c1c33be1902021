//! A rolling deploy under load: for each instance a new one is started, registered and used; then the old one's
//! registrar is told to stop, which drains it, takes its lease back and ends the process, in this order.

use std::time::{Duration, Instant};

use super::scene::{Cast, Scene};
use super::{Finding, Steady};
use crate::Outcome;
use crate::load::{End, drive};

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value_t = 20)]
    instances: u32,
    #[command(flatten)]
    pub steady: Steady,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let scene = Scene::start(&flags.steady.common.program, &[("app", None)]).await?;
    let cast = Cast { latency: "5ms", registrar: true, ..Cast::default() };
    let old = scene.instances("app", flags.instances, cast).await?;

    let (stop, end) = End::told();
    let load = tokio::spawn(drive(flags.steady.plan(&scene, "app", end)));
    let began = Instant::now();
    let mut new = Vec::new();
    for (n, mut leaving) in old.into_iter().enumerate() {
        let comes = scene.instance("app", &format!("app-new-{n}"), cast)?;
        scene.know("app", std::slice::from_ref(&comes)).await?;
        new.push(comes);
        leaving.process.terminate()?;
        leaving.process.ends_within(LEAVES_MAX).await?;
    }
    let took = began.elapsed();
    drop(stop);
    let tally = load.await?;

    let promise = format!("{} instances are replaced under load, and no request fails", flags.instances);
    let mut finding = Finding::new("deploy", promise);
    finding.note_tally("", &tally);
    finding.note_time("the deploy took", took);
    finding.note("retries", scene.metric("pointsman_retries_total", &[("service", "app")]).await?);
    finding.expect(tally.n_failed() == 0);
    Ok(finding)
}

/// From the word to the end: the drain, the lease, the running requests.
const LEAVES_MAX: Duration = Duration::from_secs(15);
