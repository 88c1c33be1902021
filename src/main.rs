//! Command line → one command → exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;
use pointsman::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().execute()
}
