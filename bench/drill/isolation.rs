//! All instances of one service hang while it is asked as hard as its clients can; another service is asked at a steady
//! rate before and meanwhile.

use std::time::Duration;

use super::scene::{Cast, Scene};
use super::{Finding, Steady};
use crate::Outcome;
use crate::load::{End, drive};

#[derive(clap::Args)]
pub struct Flags {
    /// Of each service
    #[arg(long, default_value_t = 4)]
    instances: u32,
    /// Before, and as long while the other hangs
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Clients of the service that hangs; each waits for its answer
    #[arg(long, default_value_t = 500)]
    stuck: u32,
    #[command(flatten)]
    pub steady: Steady,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let scene = Scene::start(&flags.steady.common.program, &[("hangs", None), ("well", None)]).await?;
    let _hanging = scene.instances("hangs", flags.instances, Cast { behave: Some("hang"), ..Cast::default() }).await?;
    let _well = scene.instances("well", flags.instances, Cast::default()).await?;

    let steady = || flags.steady.plan(&scene, "well", End::After(flags.duration));
    drive(flags.steady.plan(&scene, "well", End::After(WARM_UP))).await;
    let before = drive(steady()).await;
    let (stop, end) = End::told();
    let stuck = tokio::spawn(drive(scene.plan("hangs", flags.stuck, None, end)));
    tokio::time::sleep(WARM_UP).await;
    let meanwhile = drive(steady()).await;
    let in_flight = scene.metric("pointsman_upstream_in_flight", &[("service", "hangs")]).await?;
    drop(stop);
    stuck.abort();

    let limit = (before.latency(0.99) * 2).max(before.latency(0.99) + NOISE);
    let promise = "one service hangs, and another's latency does not move (p99 within twice, or 5 ms)";
    let mut finding = Finding::new("isolation", promise);
    finding.note_tally("before: ", &before);
    finding.note_tally("meanwhile: ", &meanwhile);
    finding.note("in flight at the service that hangs", in_flight);
    finding.expect(before.n_failed() + meanwhile.n_failed() == 0 && meanwhile.latency(0.99) <= limit);
    // Otherwise nothing was tried.
    finding.expect(in_flight >= u64::from(flags.stuck / 2));
    Ok(finding)
}

const WARM_UP: Duration = Duration::from_secs(1);
/// Two cores are shared with the clients and the instances.
const NOISE: Duration = Duration::from_millis(5);
