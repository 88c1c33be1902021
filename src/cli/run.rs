//! `pointsman run`: the proxy.

use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::global::{Global, config_of};
use crate::app::{self, Predecessor, Program, Start};
use crate::config::load;
use crate::telemetry::init_tracing;

#[derive(Debug, Args)]
#[command(after_help = "\
Every setting can come from the file, from a POINTSMAN_… variable or from a flag; the later wins.

Examples:
  pointsman run
  pointsman run --etcd http://127.0.0.1:2379
  pointsman run --config pointsman.toml --listen 0.0.0.0:80 --listen '[::]:80' --user pointsman")]
pub struct RunArgs {
    /// Where to take requests; several times for several addresses [default: 0.0.0.0:8080] [env: POINTSMAN_LISTEN=]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Who to be once the sockets are bound, for a start as root; name or number [env: POINTSMAN_PROCESS_USER=]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// And of which group [default: the user's] [env: POINTSMAN_PROCESS_GROUP=]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

impl RunArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let predecessor = Predecessor::of_environment().map_err(Failure::Runtime)?;
        let ended = self.run(global, predecessor.clone());
        if let (Err(failure), Some(predecessor)) = (&ended, &predecessor) {
            predecessor.refuse(&failure.to_string());
        }
        ended
    }

    fn run(self, global: &Global, predecessor: Option<Predecessor>) -> Result<ExitCode, Failure> {
        let mut layers = global.layers(&self.listen);
        (layers.flags.user, layers.flags.group) = (self.user, self.group);
        let config = config_of(&layers)?;
        init_tracing(&config.log).map_err(|error| Failure::Usage(error.to_string()))?;
        let reload = Box::new(move || load(&layers).map(|(config, _)| config).map_err(|problems| problems.to_string()));
        let program = Some(Program::of_this_process().map_err(Failure::Runtime)?);
        app::run(config, Start { reload, program, predecessor }, |_| ()).map_err(|error| Failure::Start(Box::new(error)))?;
        Ok(ExitCode::SUCCESS)
    }
}
