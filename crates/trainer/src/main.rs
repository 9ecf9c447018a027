//! Trains, judges and describes small image classifiers.

mod cli;
mod flags;
mod commands;

mod presets;
mod keys;
mod settings;
mod config;
mod suggest;

mod device;
mod run_dir;

mod training;
mod epochs;
mod tally;
mod history;
mod evaluation;
mod progress;

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
            progress::say(format_args!("error: {error:#}"));
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
