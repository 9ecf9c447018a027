//! The process: interruption by signals, log messages, and progress bars.

pub(crate) mod interruption;
pub(crate) mod logging;
pub(crate) mod progress_bar;
