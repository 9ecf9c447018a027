//! Trains, judges and describes small image classifiers: all of the program `trainer`.

mod cli;
mod flags;
mod commands;

mod presets;
mod keys;
mod settings;
mod config;
mod images;
mod suggest;
mod matrix;

mod panics;
mod device;
#[cfg(feature = "remote")]
mod remote;
mod lock;
mod files;
mod run_dir;

mod checkpoint;
mod training;
mod training_loader;
mod parity;
mod epochs;
mod pass;
mod learners;
mod precision;
mod schedule;
mod range_test;
mod tally;
mod history;
mod evaluation;

mod classifier;
mod prediction;
mod figures;
mod gallery;

#[cfg(feature = "serve")]
mod serve;

mod interruption;
mod environment;
mod logging;
mod journal;
mod progress;
mod renderer;
mod speed;

#[doc(hidden)]
pub mod fuzzing;

use std::io;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::anyhow;
use tracing::{error, info};

use crate::interruption::Interrupted;
use crate::panics::quietly;

/// Runs the program on its command line.
pub fn run() -> ExitCode {
    LazyLock::force(&progress::PROCESS_START);
    let cli = cli::Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    logging::init(cli.verbosity());
    // Burn panics where a device is lost; what a user sees of that is a message.
    let outcome = quietly(|| cli.run());
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
