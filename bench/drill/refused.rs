//! One of two instances refuses connections; nothing is configured. The drill that other proxies fail with every
//! second request.

use super::scene::{Cast, Scene, address_of_its_own};
use super::{Common, Finding};
use crate::Outcome;
use crate::load::{End, drive};
use crate::registry::instance;

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[command(flatten)]
    pub common: Common,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let mut scene = Scene::start(&flags.common.program, &[("app", None)]).await?;
    let _one = scene.instances("app", 1, Cast::default()).await?;
    let dead = instance("app", "dead", &address_of_its_own()?.to_string(), 100);
    let revision = scene.etcd.fill([dead].into_iter()).await?;
    scene.proxy.has_applied(revision).await?;

    let tally = drive(scene.plan("app", flags.connections, None, End::Requests(flags.requests))).await;
    let mut finding = Finding::new("refused", "one of two instances refuses connections, and no request fails");
    finding.note_tally("", &tally);
    finding.note("retries", scene.metric("pointsman_retries_total", &[("service", "app")]).await?);
    finding.note("ejections", scene.metric("pointsman_ejections_total", &[("service", "app")]).await?);
    finding.expect(tally.n_failed() == 0);
    Ok(finding)
}
