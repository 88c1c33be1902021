//! `pointsman delete`: takes a record away.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::global::{Global, block_on};
use super::noun::Noun;
use super::print;

#[derive(Debug, Args)]
#[command(after_help = "\
Of an instance that `pointsman register` keeps, the record comes back at once: end the registrar, or drain the instance.

Examples:
  pointsman delete instance orders/a1
  pointsman delete route shop")]
pub struct DeleteArgs {
    /// What to take away
    noun: Noun,
    /// Its name; of an instance SERVICE/ID
    name: String,
}

impl DeleteArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let key = self.noun.key(&self.name)?;
        block_on(async {
            let mut store = global.store().await?;
            let Some(revision) = store.delete(&key).await? else {
                let full = store.full(&key);
                return Err(Failure::Missing(format!("there was no {} {} ({full})", self.noun.word(), self.name)));
            };
            if global.json {
                print::json(&json!({"revision": revision}));
            } else {
                print::out(&format!("{revision}\n"));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
