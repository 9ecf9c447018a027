//! Progress bars of long work.

use std::fmt;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tracing::Level;

/// A bar for long work of `total` pieces, on a terminal; nothing elsewhere, or with --quiet.
pub(crate) fn bar(total: u64, pieces: &str) -> ProgressBar {
    if !tracing::enabled!(Level::INFO) {
        return ProgressBar::hidden();
    }
    let template = format!("{{bar:30}} {{pos}}/{{len}} {pieces}, {{rate}}, {{eta}} left");
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
