//! The program `trainer`: trains, evaluates, explains and serves small image classifiers.
//!
//! [`run()`] is the whole program; `main.rs` only calls it.

// A module imports only modules below it in this list; `tests/architecture.rs` checks that.
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
use tracing::info;

use crate::device::panics::catch_panic;
use crate::process::interruption::{self, Interrupted};
use crate::process::logging;

/// Runs the program with the arguments of the process, and returns its exit code.
pub fn run() -> ExitCode {
    LazyLock::force(&training::progress::PROCESS_START);
    let cli = cli::Cli::of_this_process();
    logging::init(cli.verbosity());
    // Burn panics if a device is lost. The user gets an error message.
    let outcome = catch_panic(|| {
        kernels::instruction_set()?;
        cli.run()
    });
    let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("{panic}; -v prints the location")));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            info!("{error}");
            ExitCode::from(interruption::EXIT_CODE)
        }
        Err(error) => {
            logging::log_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether the error is that the reader of standard output, such as `head`, has closed the pipe.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    let csv_error = error.downcast_ref::<csv::Error>().map(csv::Error::kind);
    matches!(csv_error, Some(csv::ErrorKind::Io(error)) if is_closed(error))
        || error.downcast_ref::<io::Error>().is_some_and(is_closed)
}
