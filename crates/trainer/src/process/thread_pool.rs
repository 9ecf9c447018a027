//! The thread pool of the computations.

use std::env;
use std::num::NonZero;
use std::thread::available_parallelism;

use rayon::ThreadPoolBuilder;

/// The variable with the number of threads, which the pool reads.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Starts the global pool with this thread as one of its threads. Each operation of a thread outside the pool waits
/// until a thread of the pool wakes up and has done it.
///
/// A pool of one thread stays apart: it would do the work of a data loader only while this thread waits for other work
/// of the pool, not while it waits for the loader.
pub(crate) fn start() {
    let requested = env::var(VARIABLE)
        .ok()
        .and_then(|threads| threads.parse().ok());
    let threads = requested.or_else(|| available_parallelism().ok());
    if threads.is_some_and(|threads: NonZero<usize>| threads.get() > 1) {
        let pool = ThreadPoolBuilder::new().use_current_thread();
        if let Err(error) = pool.build_global() {
            tracing::debug!("the thread pool does without the main thread: {error}");
        }
    }
}
