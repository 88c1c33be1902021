//! Of two instances in use, one refuses connections from one moment to the next, while its registration stays; nothing
//! is configured. The drill that other proxies fail with every second request.

use std::time::Duration;

use tokio::time::sleep;

use super::scene::{Cast, Scene};
use super::{Common, Finding};
use crate::Outcome;
use crate::load::{End, drive};

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    #[command(flatten)]
    pub common: Common,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let scene = Scene::start(&flags.common.program, &[("app", None)]).await?;
    let instances = scene.instances("app", 2, Cast::default()).await?;

    let load = tokio::spawn(drive(scene.plan("app", flags.common.connections, None, End::Requests(flags.requests))));
    sleep(BOTH_USED).await;
    let served = instances[1].n_requests().await?;
    instances[1].behaves("refuse").await?;
    let tally = load.await?;

    let mut finding = Finding::new("refused", "one of two instances begins to refuse connections, and no request fails");
    finding.note_tally("", &tally);
    finding.note("served by the one that refuses", served);
    let retries = scene.metric("pointsman_retries_total", &[("service", "app")]).await?;
    let ejections = scene.metric("pointsman_ejections_total", &[("service", "app")]).await?;
    finding.note("retries", retries);
    finding.note("ejections", ejections);
    finding.expect(tally.n_failed() == 0);
    // Otherwise nothing was tried.
    finding.expect(served > 0 && retries + ejections > 0);
    Ok(finding)
}

/// How long both of them serve.
const BOTH_USED: Duration = Duration::from_millis(500);
