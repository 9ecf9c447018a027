//! What the program says: on standard error, and with the time of day in a run's `train.log`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Errors.
    Quiet,
    /// What happens.
    Normal,
    /// Details, and what the libraries have to say.
    Verbose,
}

/// The target of what is only for the file.
pub(crate) const FILE_ONLY: &str = "trainer::file_only";

/// The log of the run, once there is one.
static FILE: Mutex<Option<File>> = Mutex::new(None);

/// Whether standard error is for messages now.
static CONSOLE: AtomicBool = AtomicBool::new(true);

/// Starts to listen to what this program and its libraries say.
pub(crate) fn init(verbosity: Verbosity) {
    let most = match verbosity {
        Verbosity::Quiet => LevelFilter::ERROR,
        Verbosity::Normal => LevelFilter::INFO,
        Verbosity::Verbose => LevelFilter::DEBUG,
    };
    let of_libraries = match verbosity {
        Verbosity::Quiet | Verbosity::Normal => LevelFilter::ERROR,
        Verbosity::Verbose => LevelFilter::INFO,
    };
    let wanted = move |metadata: &Metadata<'_>, most: LevelFilter| {
        let most = if is_ours(metadata) {
            most
        } else {
            of_libraries
        };
        *metadata.level() <= most
    };
    let console = layer()
        .event_format(Plain)
        .with_writer(io::stderr)
        .log_internal_errors(false)
        .with_filter(
            dynamic_filter_fn(move |metadata, _| {
                CONSOLE.load(Ordering::Relaxed)
                    && metadata.target() != FILE_ONLY
                    && wanted(metadata, most)
            })
            .with_max_level_hint(most),
        );
    let most = most.max(LevelFilter::INFO);
    let file = layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(|| LogFile)
        // A full disk ends the training where it cannot write a checkpoint, not here.
        .log_internal_errors(false)
        .with_filter(
            dynamic_filter_fn(move |metadata, _| wanted(metadata, most)).with_max_level_hint(most),
        );
    tracing_subscriber::registry()
        .with(console)
        .with(file)
        .init();
}

/// Writes all that follows to the end of `path` too.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn to_file(path: &Path) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let file = file.with_context(|| format!("{}: cannot write", path.display()))?;
    *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// Says nothing on standard error while this lives: the screen is a dashboard's.
#[derive(Debug)]
pub(crate) struct ConsolePause(());

impl ConsolePause {
    pub(crate) fn new() -> Self {
        CONSOLE.store(false, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for ConsolePause {
    fn drop(&mut self) {
        CONSOLE.store(true, Ordering::Relaxed);
    }
}

/// Whether this program says it, not a library.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target == "trainer" || target.starts_with("trainer::")
}

/// A message as it is; one that is more than a message says so.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // What comes through the crate `log` has its own name there.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        match *metadata.level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            _ => {}
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        if !is_ours(metadata) {
            write!(writer, " ({})", metadata.target())?;
        }
        writeln!(writer)
    }
}

/// Writes to the log of the run, if there is one.
struct LogFile;

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *FILE.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
