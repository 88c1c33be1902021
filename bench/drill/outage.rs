//! Every instance answers 503 to everything but its probes. Clients cannot be helped; what counts is that retries do not
//! double the load on a service that has enough trouble. The instances themselves count.

use std::time::Duration;

use super::scene::{Cast, Scene};
use super::{Finding, Steady};
use crate::Outcome;
use crate::load::{End, drive};

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value_t = 5)]
    instances: u32,
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    pub steady: Steady,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let scene = Scene::start(&flags.steady.common.program, &[("app", None)]).await?;
    let cast = Cast { behave: Some("fail&status=503"), ..Cast::default() };
    let instances = scene.instances("app", flags.instances, cast).await?;

    let tally = drive(flags.steady.plan(&scene, "app", End::After(flags.duration))).await;
    let received = tally.n_answered() + tally.n_failed();
    let mut sent = 0;
    for instance in &instances {
        sent += instance.n_requests().await?;
    }
    let ratio = sent as f64 / received.max(1) as f64;
    let promise = format!("every instance fails, and they get less than {RATIO_MAX} times the requests received");
    let mut finding = Finding::new("outage", promise);
    finding.note("requests received", received);
    finding.note("requests sent upstream", sent);
    finding.note("ratio", (ratio * 1e3).round() / 1e3);
    finding.note("answered with 2xx", tally.n_answered());
    for (failure, n) in tally.failures() {
        finding.note(failure.to_string(), n);
    }
    finding.note("retries denied", scene.metric("pointsman_retries_denied_total", &[("service", "app")]).await?);
    finding.expect(ratio < RATIO_MAX);
    Ok(finding)
}

const RATIO_MAX: f64 = 1.25;
