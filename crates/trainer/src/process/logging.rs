//! Log messages: on standard error, and with a time stamp in the log file of a run.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Error, Result};
use data::regular_file;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, error};
use tracing_log::NormalizeEvent;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::process::printable::{error_text, printable, printable_lines};

/// The level of the messages on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// Errors, warnings and progress.
    Normal,
    /// Debug messages, and the messages of libraries.
    Verbose,
}

/// The target of messages for the log file only.
pub(crate) const FILE_ONLY: &str = "trainer::file_only";

/// The field of a message for lines of text, which follow the message itself.
const LINES: &str = "lines";

/// The log file of the run, if there is one.
static FILE: Mutex<Option<File>> = Mutex::new(None);

/// Whether messages are printed on standard error.
static CONSOLE_ENABLED: AtomicBool = AtomicBool::new(true);

/// Installs the subscriber of the log messages of this program and its libraries.
pub(crate) fn init(verbosity: Verbosity) {
    let max_level = match verbosity {
        Verbosity::Quiet => LevelFilter::ERROR,
        Verbosity::Normal => LevelFilter::INFO,
        Verbosity::Verbose => LevelFilter::DEBUG,
    };
    let max_level_of_libraries = match verbosity {
        Verbosity::Quiet | Verbosity::Normal => LevelFilter::ERROR,
        Verbosity::Verbose => LevelFilter::INFO,
    };
    let is_enabled = move |metadata: &Metadata<'_>, max_level: LevelFilter| {
        let max_level = if is_own(metadata) {
            max_level
        } else {
            max_level_of_libraries
        };
        *metadata.level() <= max_level
    };
    let console = layer()
        .event_format(PlainFormat)
        .fmt_fields(PrintableFields)
        .with_writer(io::stderr)
        .log_internal_errors(false)
        .with_filter(
            dynamic_filter_fn(move |metadata, _| {
                CONSOLE_ENABLED.load(Ordering::Relaxed)
                    && metadata.target() != FILE_ONLY
                    && is_enabled(metadata, max_level)
            })
            .with_max_level_hint(max_level),
        );
    let max_level = max_level.max(LevelFilter::INFO);
    let file = layer()
        .with_ansi(false)
        .with_target(false)
        .fmt_fields(PrintableFields)
        .with_writer(|| LogFile)
        // A full disk is reported as the error of the next checkpoint.
        .log_internal_errors(false)
        .with_filter(
            dynamic_filter_fn(move |metadata, _| is_enabled(metadata, max_level))
                .with_max_level_hint(max_level),
        );
    tracing_subscriber::registry()
        .with(console)
        .with(file)
        .init();
}

/// Logs an error with its causes.
pub(crate) fn log_error(error: &Error) {
    error!(lines = %error_text(error));
}

/// Appends all further messages to the log file `path`, too.
///
/// # Errors
/// Returns an error if the file cannot be opened.
pub(crate) fn to_file(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = regular_file::open_with(path, options.append(true).create(true));
    let file = file.with_context(|| format!("{}: cannot write", path.display()))?;
    *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// Suppresses messages on standard error until dropped, while the dashboard uses the screen.
#[derive(Debug)]
pub(crate) struct ConsolePause(());

impl ConsolePause {
    pub(crate) fn new() -> Self {
        CONSOLE_ENABLED.store(false, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for ConsolePause {
    fn drop(&mut self) {
        CONSOLE_ENABLED.store(true, Ordering::Relaxed);
    }
}

/// Whether the message is from this program, not from a library.
fn is_own(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target == "trainer" || target.starts_with("trainer::")
}

/// Formats a message for the console: the text, with a prefix for errors and warnings.
struct PlainFormat;

impl<S, N> FormatEvent<S, N> for PlainFormat
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
        // Messages of the crate `log` carry their target in the normalized metadata.
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
        if !is_own(metadata) {
            write!(writer, " ({})", metadata.target())?;
        }
        writeln!(writer)
    }
}

/// Formats the fields of a message. The text is escaped to one line; a field [`LINES`] keeps its line breaks.
struct PrintableFields;

impl<'writer> FormatFields<'writer> for PrintableFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut fields_writer = FieldsWriter {
            writer,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut fields_writer);
        fields_writer.result
    }
}

/// Writes fields.
struct FieldsWriter<'writer> {
    writer: Writer<'writer>,
    /// Whether nothing is written yet.
    is_first: bool,
    result: fmt::Result,
}

impl Visit for FieldsWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        let space = if self.is_first { "" } else { " " };
        let text = match field.name() {
            // Of messages of the crate `log`; part of the normalized metadata.
            name if name.starts_with("log.") => return,
            "message" => format!("{space}{}", printable(value)),
            LINES if self.is_first => printable_lines(&value),
            // Indented, so that none of the lines looks like another message.
            LINES => format!("\n{}", printable_lines(&value)).replace('\n', "\n  "),
            name => format!("{space}{name}={}", printable(value)),
        };
        self.is_first = false;
        self.result = self.result.and_then(|()| self.writer.write_str(&text));
    }
}

/// Writes to the log file of the run, if there is one.
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
