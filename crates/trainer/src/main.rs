//! Trains, judges and describes small image classifiers.

mod cli;
mod commands;

mod config;
mod keys;
mod presets;
mod settings;

mod device;
mod run_dir;

mod epochs;
mod evaluation;
mod history;
mod progress;
mod tally;
mod training;

use std::io;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::Parser;

/// Tensors of a step are allocated and freed each time; the system's allocator hands large ones
/// back to the kernel and asks for them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    LazyLock::force(&progress::PROCESS_START);
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output left, as `head` does: it has what it wanted.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
