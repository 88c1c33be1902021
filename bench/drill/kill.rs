//! Instances are killed with SIGKILL, one a second, and come back at the same address a while later, as under any
//! supervisor. Their registrations live on until the lease ends, so the registry is no help.

use std::time::{Duration, Instant};

use tokio::time::{interval, sleep};

use super::scene::{Cast, Instance, Scene};
use super::{Finding, Steady};
use crate::Outcome;
use crate::load::{End, drive};

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value_t = 10)]
    instances: u32,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Kills a second
    #[arg(long, default_value_t = 1.0)]
    kills: f64,
    /// A killed instance is started again after this
    #[arg(long, default_value = "1500ms", value_parser = humantime::parse_duration)]
    away: Duration,
    #[command(flatten)]
    pub steady: Steady,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let scene = Scene::start(&flags.steady.common.program, &[("app", None)]).await?;
    // So that each kill meets requests that run.
    let cast = Cast { latency: "10ms", ..Cast::default() };
    let mut running = scene.instances("app", flags.instances, cast).await?;

    let (stop, end) = End::told();
    let load = tokio::spawn(drive(flags.steady.plan(&scene, "app", end)));
    let ends_at = Instant::now() + Duration::from_secs(flags.seconds);
    let mut due = interval(Duration::from_secs_f64(1.0 / flags.kills));
    let mut away: Vec<(Instant, Instance)> = Vec::new();
    let mut n_kills = 0;
    due.tick().await;
    while Instant::now() < ends_at {
        due.tick().await;
        while let Some(back) = away.pop_if(|(at, _)| at.elapsed() >= flags.away) {
            running.push(scene.instance("app", &back.1.id, Cast { at: Some(back.1.address), ..cast })?);
        }
        // Somebody has to be left: with a few instances and long absences there is nobody to kill for a moment.
        if running.len() > 1 {
            let mut killed = running.swap_remove(fastrand::usize(..running.len()));
            killed.process.kill();
            n_kills += 1;
            away.insert(0, (Instant::now(), killed));
        }
    }
    sleep(SETTLE).await;
    drop(stop);
    let tally = load.await?;

    let promise = format!("instances are killed at {}/s for {} s, and no idempotent request fails", flags.kills, flags.seconds);
    let mut finding = Finding::new("kill", promise);
    finding.note_tally("", &tally);
    finding.note("kills", n_kills);
    finding.note("retries", scene.metric("pointsman_retries_total", &[("service", "app")]).await?);
    finding.note("ejections", scene.metric("pointsman_ejections_total", &[("service", "app")]).await?);
    finding.expect(tally.n_failed() == 0);
    Ok(finding)
}

/// What the last kill leaves behind counts as well.
const SETTLE: Duration = Duration::from_secs(1);
