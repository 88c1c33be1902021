//! `pointsman top`: the services of a proxy, again and again.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::admin::Admin;
use super::failure::Failure;
use super::global::{Global, block_on};
use super::print::{self, is_coloured};
use super::status;

#[derive(Debug, Args)]
#[command(after_help = "\
It ends with Ctrl-C. With --json it writes one answer a line.

Examples:
  pointsman top
  pointsman top --admin 10.0.0.2:9900 --interval 5s")]
pub struct TopArgs {
    /// Between looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = period)]
    interval: Duration,
}

impl TopArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let admin = Admin::of(global)?;
        block_on(async {
            let mut ticks = interval(self.interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut rates = Rates::default();
            loop {
                ticks.tick().await;
                let services = admin.ask("/api/v1/services").await?["services"].take();
                if global.json {
                    print::out(&format!("{services}\n"));
                    continue;
                }
                let rates = rates.since_last(&services, Instant::now());
                let table = status::services(&services, Some(&rates)).render(is_coloured());
                print::out(&format!("{}{table}\n", if io::stdout().is_terminal() { CLEAR } else { "" }));
            }
        })
    }
}

/// How many requests each service had when it was last asked.
#[derive(Default)]
struct Rates {
    last: Option<(Instant, HashMap<String, u64>)>,
}

impl Rates {
    /// Requests a second, in the order of the services; 0 for those seen for the first time.
    fn since_last(&mut self, services: &Json, now: Instant) -> Vec<f64> {
        let name_and_count = |s: &Json| (s["name"].as_str().unwrap_or_default().to_owned(), s["requests"].as_u64().unwrap_or(0));
        let counts: Vec<(String, u64)> = services.as_array().into_iter().flatten().map(name_and_count).collect();
        let rate = |(name, n): &(String, u64)| {
            let (then, before) = self.last.as_ref()?;
            let seconds = now.duration_since(*then).as_secs_f64();
            let n_new = n.checked_sub(*before.get(name)?)?;
            (seconds > 0.0).then(|| n_new as f64 / seconds)
        };
        let rates = counts.iter().map(|count| rate(count).unwrap_or(0.0)).collect();
        self.last = Some((now, counts.into_iter().collect()));
        rates
    }
}

fn period(said: &str) -> Result<Duration, String> {
    match humantime::parse_duration(said) {
        Ok(period) if period < INTERVAL_MIN => Err(format!("{INTERVAL_MIN:?} is the shortest")),
        Ok(period) => Ok(period),
        Err(error) => Err(error.to_string()),
    }
}

/// Cursor home, screen empty.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Watching must not become load.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_what_came_since_the_last_look() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rates.since_last(&json!([{"name": "a", "requests": 10}]), start), [0.0]);
        assert_eq!(rates.since_last(&json!([{"name": "new", "requests": 5}, {"name": "a", "requests": 30}]), at(2)), [0.0, 10.0]);
        // A proxy that was started again counts from 0.
        assert_eq!(rates.since_last(&json!([{"name": "a", "requests": 1}]), at(3)), [0.0]);
    }
}
