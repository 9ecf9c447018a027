//! Progress bars.

use std::fmt;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tracing::Level;

/// Returns a progress bar over `total` items; `unit` is their plural. It is hidden with --quiet, or if
/// standard error is not a terminal.
pub(crate) fn bar(total: u64, unit: &str) -> ProgressBar {
    if !tracing::enabled!(Level::INFO) {
        return ProgressBar::hidden();
    }
    let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}, {{rate}}, {{eta}} left");
    let bar = ProgressBar::new(total);
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style.with_key(
            "rate",
            |state: &ProgressState, text: &mut dyn fmt::Write| {
                let _ = write!(text, "{:.0}/s", state.per_sec());
            },
        )),
        Err(_) => bar,
    }
}

/// Returns a display of the number of bytes so far, hidden as [`bar`] is.
pub(crate) fn byte_bar() -> ProgressBar {
    if !tracing::enabled!(Level::INFO) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{bytes}, {bytes_per_sec}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
