//! The sample service by itself. `examples/README.md` has lines to try.

mod sample;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    let announce = |address| writeln!(io::stdout(), "listening {address}");
    match sample::run(sample::Flags::parse().options(), announce).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample: {error}");
            ExitCode::FAILURE
        }
    }
}
