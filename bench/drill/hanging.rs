//! One of ten instances accepts connections, reads requests and never answers, while its health is fine: only the time
//! limit of an attempt, and what is learned from it, help.

use std::time::Duration;

use serde_json::json;

use super::scene::{Cast, Scene};
use super::{Finding, Steady};
use crate::Outcome;
use crate::load::{End, drive};

#[derive(clap::Args)]
pub struct Flags {
    #[arg(long, default_value_t = 10)]
    instances: u32,
    #[arg(long, default_value = "250ms", value_parser = humantime::parse_duration)]
    per_try_timeout: Duration,
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    #[command(flatten)]
    pub steady: Steady,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let limit = flags.per_try_timeout * 2 + BACKOFF_MAX;
    let timeout = humantime::format_duration(flags.per_try_timeout).to_string();
    let policy = json!({ "v": 1, "retry": { "per_try_timeout": timeout } });
    let scene = Scene::start(&flags.steady.common.program, &[("app", Some(policy))]).await?;
    let _well = scene.instances("app", flags.instances - 1, Cast::default()).await?;
    let hanging = scene.instance("app", "hanging", Cast { behave: Some("hang"), ..Cast::default() })?;
    scene.know("app", std::slice::from_ref(&hanging)).await?;

    let tally = drive(flags.steady.plan(&scene, "app", End::After(flags.duration))).await;
    let promise = format!(
        "one of {} instances hangs; it is ejected, and no request fails or takes longer than two tries and the pause between, {limit:?}",
        flags.instances
    );
    let mut finding = Finding::new("hanging", promise);
    finding.note_tally("", &tally);
    finding.note("requests at the hanging one", hanging.n_requests().await?);
    let seen = scene.proxies[0].seen("app").await?.into_iter().find(|instance| instance["id"] == "hanging").unwrap_or_default();
    finding.note("the hanging one is", seen["passive"].clone());
    finding.note("because", seen["reason"].clone());
    finding.expect(tally.n_failed() == 0 && tally.slowest() <= limit);
    finding.expect(seen["passive"].as_str().is_some_and(|passive| passive != "ok"));
    Ok(finding)
}

/// The longest pause before a retry, as the proxy documents it.
const BACKOFF_MAX: Duration = Duration::from_millis(250);
