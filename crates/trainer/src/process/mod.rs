//! The process: signals, log messages, the thread pool, memory, and terminal output.

pub(crate) mod printable;
pub(crate) mod interruption;
pub(crate) mod logging;
pub(crate) mod peak_memory;
pub(crate) mod progress_bar;
pub(crate) mod table;
pub(crate) mod thread_pool;
