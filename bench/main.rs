//! Every figure the project claims, each by one command (`bench/README.md`). Nothing here knows a Rust name of the
//! proxy: what is measured is the built program, next to its peers, over sockets.

mod change;
mod cold_start;
mod cpu;
mod drill;
mod handshakes;
mod load;
mod message;
mod probes;
mod process;
mod propagation;
mod proxies;
mod registry;
mod respond;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// What can go wrong here ends the measurement, so a message is all anybody needs of it.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
#[command(bin_name = "cargo bench --bench measure --")]
struct Flags {
    #[command(subcommand)]
    figure: Option<Figure>,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Figure {
    /// Requests to any HTTP/1.1 address: how many, how fast, what failed
    Load(load::Flags),
    /// A fast upstream: answers everything with a body of a given size
    Respond(respond::Flags),
    /// CPU time per request of proxies, in interleaved rounds
    Cpu(cpu::Flags),
    /// CPU time of a TLS handshake at proxies, full and resumed, in interleaved rounds
    Handshakes(handshakes::Flags),
    /// From a put in etcd to the first request the new instance serves
    Propagation(propagation::Flags),
    /// From the start of the proxy until it routes to 100,000 instances
    ColdStart(cold_start::Flags),
    /// CPU time the proxy spends on one change of the registry
    Change(change::Flags),
    /// CPU share and punctuality of probing 10,000 instances
    Probes(probes::Flags),
    /// Something goes wrong under load: what the users notice of it
    #[command(subcommand)]
    Drill(drill::Drill),
}

fn main() -> ExitCode {
    let Some(figure) = Flags::parse().figure else {
        // `cargo bench` without a name runs every benchmark; the figures take minutes, so they are asked for.
        let _ = Flags::command().print_help();
        return ExitCode::SUCCESS;
    };
    match run(figure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(figure: Figure) -> Outcome<()> {
    process::adopt_orphans()?;
    // Requests are made, and answered, on one thread, which can be kept off the measured core.
    let alone = || runtime::Builder::new_current_thread().enable_all().build();
    let beside = || runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match figure {
        Figure::Load(flags) => to_its_end(alone(), load::run(flags)),
        Figure::Respond(flags) => to_its_end(alone(), respond::run(flags)),
        Figure::Cpu(flags) => to_its_end(alone(), cpu::run(flags)),
        Figure::Handshakes(flags) => to_its_end(alone(), handshakes::run(flags)),
        Figure::Propagation(flags) => to_its_end(beside(), propagation::run(flags)),
        Figure::ColdStart(flags) => to_its_end(beside(), cold_start::run(flags)),
        Figure::Change(flags) => to_its_end(beside(), change::run(flags)),
        Figure::Probes(flags) => to_its_end(beside(), probes::run(flags)),
        Figure::Drill(drill) => to_its_end(beside(), drill::run(drill)),
    }
}

/// Or to Ctrl-C. Whatever was started ends with the figure's future, which owns it.
fn to_its_end(runtime: io::Result<Runtime>, figure: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    runtime?.block_on(async {
        let [mut interrupt, mut terminate, mut hang_up] =
            [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
        tokio::select! {
            outcome = figure => return outcome,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        Err("interrupted; everything it had started is stopped".into())
    })
}
