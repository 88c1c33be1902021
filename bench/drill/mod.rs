//! Drills: something goes wrong under load, and what the users of a service notice of it is counted.
//!
//! Instances are processes of the sample service that register themselves in a real etcd, so that they can be killed,
//! stopped and told to hang. Each drill states a promise, prints its figures and ends with 1 if it is broken.

mod admin;
mod deploy;
mod finding;
mod hanging;
mod isolation;
mod kill;
mod landscape;
mod outage;
mod refused;
mod relay;
mod scene;

use clap::Subcommand;

use crate::Outcome;
use crate::load::{End, Plan};
use crate::proxies::Program;
use finding::Finding;
use scene::Scene;

#[derive(Subcommand)]
pub enum Drill {
    /// One of two instances refuses connections, default settings
    Refused(refused::Flags),
    /// One of ten instances accepts requests and never answers
    Hanging(hanging::Flags),
    /// Every instance is replaced, one after the other
    Deploy(deploy::Flags),
    /// Instances are killed at random, and come back
    Kill(kill::Flags),
    /// Every instance answers 503
    Outage(outage::Flags),
    /// Every instance of one service hangs, another service goes on
    Isolation(isolation::Flags),
    /// One thing after the other goes wrong: killed, hung, poisoned, partitioned, restored, upgraded
    Landscape(landscape::Flags),
}

/// What all drills understand.
#[derive(clap::Args)]
pub struct Common {
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// Of the clients
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[command(flatten)]
    program: Program,
}

/// Of a drill whose clients ask at an even pace, whatever becomes of their requests.
#[derive(clap::Args)]
pub struct Steady {
    /// Requests a second
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    #[command(flatten)]
    common: Common,
}

impl Steady {
    fn plan(&self, scene: &Scene, service: &str, end: End) -> Plan {
        scene.plan(service, self.common.connections, Some(self.rate), end)
    }
}

pub async fn run(drill: Drill) -> Outcome<()> {
    let (finding, common) = match drill {
        Drill::Refused(flags) => (refused::run(&flags).await?, flags.common),
        Drill::Hanging(flags) => (hanging::run(&flags).await?, flags.steady.common),
        Drill::Deploy(flags) => (deploy::run(&flags).await?, flags.steady.common),
        Drill::Kill(flags) => (kill::run(&flags).await?, flags.steady.common),
        Drill::Outage(flags) => (outage::run(&flags).await?, flags.steady.common),
        Drill::Isolation(flags) => (isolation::run(&flags).await?, flags.steady.common),
        Drill::Landscape(flags) => (landscape::run(&flags).await?, flags.steady.common),
    };
    println!("{}", if common.json { finding.json().to_string() } else { finding.to_string() });
    if finding.is_kept { Ok(()) } else { Err(format!("the promise of drill {} is broken", finding.drill).into()) }
}
