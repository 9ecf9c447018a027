//! Trains, judges and describes small image classifiers: all of the program `trainer`.

// Arrows point down this list only.
mod cli;
mod commands;
#[cfg(feature = "serve")]
mod serve;
mod figures;
mod training;
mod inference;
mod run;
mod device;
mod config;
mod process;

#[doc(hidden)]
pub mod fuzzing;

use std::io;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::anyhow;
use tracing::{error, info};

use crate::device::panics::catch_panic;
use crate::process::interruption::{self, Interrupted};
use crate::process::logging;

/// Runs the program on its command line.
pub fn run() -> ExitCode {
    LazyLock::force(&training::progress::PROCESS_START);
    let cli = cli::Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    logging::init(cli.verbosity());
    // Burn panics where a device is lost; what a user sees of that is a message.
    let outcome = catch_panic(|| cli.run());
    let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("{panic}; -v says where")));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            info!("{error}");
            ExitCode::from(interruption::EXIT_CODE)
        }
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output left, as `head` does: it has what it wanted.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    let of_csv = error.downcast_ref::<csv::Error>().map(csv::Error::kind);
    matches!(of_csv, Some(csv::ErrorKind::Io(error)) if is_closed(error))
        || error.downcast_ref::<io::Error>().is_some_and(is_closed)
}
