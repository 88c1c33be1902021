//! `pointsman check`: everything that is wrong with the configuration, and with the registry, at once.

mod findings;

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::global::{Global, block_on};
use super::print::{self, Tone, is_coloured};
use crate::config::{Config, load};
use crate::registry::{Entry, Layout};
use findings::{Finding, Weight, in_configuration, in_plain_sight, in_registry};

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 1 if there is a problem; what is merely odd is a warning.

Examples:
  pointsman check --config pointsman.toml
  pointsman check --registry --etcd http://10.0.0.1:2379
  pointsman check --registry --json")]
pub struct CheckArgs {
    /// Also every record under the prefix and of the sources, and what they say of each other
    #[arg(long)]
    registry: bool,
}

impl CheckArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let loaded = load(&global.layers(&[]));
        let mut found = in_configuration(&loaded);
        let mut n_records = 0;
        if self.registry {
            let config = loaded.as_ref().ok().map(|(config, _)| config);
            let (own, foreign) = block_on(listed(global, config))?;
            n_records = own.len() + foreign.len();
            found.extend(in_registry(&own, &foreign, config));
            found.extend(config.and_then(|config| in_plain_sight(&own, &config.registry.kind)));
        }
        let n_problems = found.iter().filter(|finding| finding.weight == Weight::Problem).count();
        if global.json {
            print::json(&json!({
                "problems": of_weight(&found, Weight::Problem),
                "warnings": of_weight(&found, Weight::Warning),
                "records": n_records,
            }));
        } else {
            found.iter().for_each(|finding| print::out(&format!("{}\n", line(finding))));
            let records = if self.registry { format!(" in the configuration and {n_records} records") } else { String::new() };
            print::note(&match n_problems {
                0 => format!("no problem{records}"),
                n => format!("{n} {}{records}", if n == 1 { "problem" } else { "problems" }),
            });
        }
        Ok(if n_problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What stands under our prefix, and what the sources have, if the configuration says which.
async fn listed(global: &Global, config: Option<&Config>) -> Result<(Vec<Entry>, Vec<Entry>), Failure> {
    let mut store = global.store().await?;
    let own = store.list("/").await?.entries;
    let mut foreign = Vec::new();
    for source in config.iter().flat_map(|config| Layout::sources(&config.registry.prefix, &config.registry.sources)) {
        foreign.extend(store.list_source(&source).await?.entries);
    }
    Ok((own, foreign))
}

fn line(finding: &Finding) -> String {
    let (word, tone) = match finding.weight {
        Weight::Problem => ("problem", Tone::Bad),
        Weight::Warning => ("warning", Tone::Warning),
    };
    format!("{}: {}", tone.paint(word, is_coloured()), finding.text)
}

fn of_weight(found: &[Finding], weight: Weight) -> Vec<serde_json::Value> {
    let of_weight = found.iter().filter(|finding| finding.weight == weight);
    of_weight.map(|finding| json!({"key": finding.key, "revision": finding.revision, "message": finding.text})).collect()
}
