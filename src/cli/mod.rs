//! FLOOR 7. One file per command: parse, call, print. No logic of its own.
//!
//! Exit codes: 0 done, 1 it failed or found problems, 2 it was called wrongly; `import` has 3, too: something is missing. Answers go to stdout, what is said about
//! them to stderr.

mod admin;
mod admin_tls;
mod check;
mod delete;
mod demo;
mod drain;
mod explain;
mod failure;
mod get;
mod global;
mod import;
mod noun;
mod outline;
mod print;
mod proxies;
mod put;
mod register;
mod run;
mod status;
mod top;
mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::Failure;
use global::Global;

/// A load balancer whose upstreams live in etcd.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Run(run::RunArgs),
    /// Run everything on this machine: embedded registry, sample services, proxy, page
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    Sample(demo::SampleArgs),
    /// Name every mistake in the configuration and the registry
    Check(check::CheckArgs),
    /// Show records of the registry
    Get(get::GetArgs),
    /// Check a record, then write it
    Put(put::PutArgs),
    /// Take a record away
    Delete(delete::DeleteArgs),
    /// Take an instance out of traffic without losing a request
    Drain(drain::DrainArgs),
    /// Wait until every proxy routes by a revision
    Wait(wait::WaitArgs),
    /// Show how a proxy and its instances are
    Status(status::StatusArgs),
    /// Watch the services of a proxy
    Top(top::TopArgs),
    /// Tell what a proxy would do with a request, and why
    Explain(explain::ExplainArgs),
    /// Keep an instance registered, alone or around its command
    Register(register::RegisterArgs),
    /// Turn a configuration of nginx or confd into ours
    Import(import::ImportArgs),
}

impl Cli {
    pub fn execute(self) -> ExitCode {
        let global = &self.global;
        let result = match self.command {
            Command::Run(args) => args.execute(global),
            Command::Demo(args) => args.execute(global),
            Command::Sample(args) => args.execute(),
            Command::Check(args) => args.execute(global),
            Command::Get(args) => args.execute(global),
            Command::Put(args) => args.execute(global),
            Command::Delete(args) => args.execute(global),
            Command::Drain(args) => args.execute(global),
            Command::Wait(args) => args.execute(global),
            Command::Status(args) => args.execute(global),
            Command::Top(args) => args.execute(global),
            Command::Explain(args) => args.execute(global),
            Command::Register(args) => args.execute(global),
            Command::Import(args) => args.execute(global),
        };
        result.unwrap_or_else(|failure: Failure| {
            print::note(&format!("pointsman: {failure}"));
            ExitCode::from(failure.exit_code())
        })
    }
}

const EXAMPLES: &str = "\
Examples:
  pointsman register --service orders --address auto:8080 --probe /healthz -- ./orders
  pointsman get instance
  pointsman drain orders/a1 --wait
  pointsman check --config pointsman.toml --registry";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        let cli = Cli::command();
        for command in cli.get_subcommands().chain([&cli]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
