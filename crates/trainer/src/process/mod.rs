//! The process: interruption by signals, log messages, threads, memory, and what is printed on the terminal.

pub(crate) mod printable;
pub(crate) mod interruption;
pub(crate) mod logging;
pub(crate) mod peak_memory;
pub(crate) mod progress_bar;
pub(crate) mod table;
pub(crate) mod thread_pool;
