//! The allocator of a program that uses mimalloc.

use std::ffi::{c_int, c_long};

use libmimalloc_sys as _; // links mimalloc

/// mimalloc's number of the option `purge_delay`, the same in its versions 2 and 3.
const PURGE_DELAY: c_int = 15;
/// Milliseconds after which mimalloc returns freed memory to the system: longer than a training step.
const DELAY: c_long = 10_000;

unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// Lets mimalloc keep freed memory for the next training step. By default it returns it after a second; a longer step
/// spends up to a tenth of its time on page faults. `MIMALLOC_PURGE_DELAY` takes precedence.
///
/// Call it while there is one thread: mimalloc does not synchronize its options.
pub fn keep_freed_memory() {
    // SAFETY: the option exists, and the function only stores the value. A thread that reads it at the same time gets
    // the old or the new value.
    unsafe { mi_option_set_default(PURGE_DELAY, DELAY) };
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    #[test]
    fn freed_memory_is_kept_for_ten_seconds() {
        keep_freed_memory();
        // SAFETY: the option exists, and the function only reads its value.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, 10_000);
    }
}
