//! The decision between one thread and several, and values that threads share.

use std::sync::OnceLock;

/// Multiply-adds that are worth a second thread, for a thread of the pool: other threads of the pool often still look
/// for work.
const WITHIN_POOL: usize = 1 << 19;
/// Multiply-adds that are worth entering the pool, for another thread: it sleeps until a thread of the pool, which it
/// has to wake up, has done the work.
const OUTSIDE_POOL: usize = 1 << 22;

/// Returns whether so few multiply-adds are faster on this thread alone.
pub(crate) fn is_small(multiply_adds: usize) -> bool {
    let threshold = match rayon::current_thread_index() {
        // Tests have small shapes.
        _ if cfg!(test) => 1 << 12,
        Some(_) => WITHIN_POOL,
        None => OUTSIDE_POOL,
    };
    multiply_adds < threshold
}

/// Returns the value of the cell; computes it if there is none. In contrast to [`OnceLock::get_or_init`], the cell is not
/// locked in the meantime: a thread that waits for the parallel part of `init` may run other work of the pool, which
/// may need the same cell.
pub(crate) fn init_unlocked<T>(cell: &OnceLock<T>, init: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(value) => value,
        None => {
            let value = init();
            cell.get_or_init(|| value)
        }
    }
}
