//! `pointsman wait`: until every proxy routes by a revision, so that a script can go on.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::global::{Global, block_on};
use super::{print, proxies};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pointsman wait --revision 812
  pointsman wait --revision $(pointsman put route shop shop.json) --timeout 5s")]
pub struct WaitArgs {
    /// As put, delete and drain print it
    #[arg(long)]
    revision: u64,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl WaitArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        block_on(async {
            let mut store = global.store().await?;
            let n = proxies::wait_for_all(&mut store, self.timeout, |proxy| proxy.applied_revision >= self.revision).await?;
            if global.json {
                print::json(&json!({"revision": self.revision, "proxies": n}));
            } else if n == 0 {
                print::note("no proxy is running");
            } else {
                print::out(&format!("{n} proxies route by revision {} or newer\n", self.revision));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
