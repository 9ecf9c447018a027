//! Panics of libraries, caught as errors.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::debug;

thread_local! {
    /// Number of active calls of [`catch_panic`] in this thread.
    static ACTIVE: Cell<usize> = const { Cell::new(0) };
}

/// Number of active calls of [`catch_panic_in_all_threads`] in this process.
static ACTIVE_IN_PROCESS: AtomicUsize = AtomicUsize::new(0);

/// Runs `work`, and returns the first line of the message if it panics, instead of printing it.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The panic hook is shared by all threads; the counter is per thread.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if ACTIVE.get() == 0 && ACTIVE_IN_PROCESS.load(Ordering::Relaxed) == 0 {
                print(panic);
            } else {
                debug!("{panic}");
            }
        }));
    });
    ACTIVE.set(ACTIVE.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    ACTIVE.set(ACTIVE.get() - 1);
    result.map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        text.and_then(|text| text.lines().next())
            .unwrap_or("no message")
            .into()
    })
}

/// Like [`catch_panic`], for work that also runs in other threads and propagates their panics.
/// Silences the messages of all threads.
pub(crate) fn catch_panic_in_all_threads<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    ACTIVE_IN_PROCESS.fetch_add(1, Ordering::Relaxed);
    let result = catch_panic(work);
    ACTIVE_IN_PROCESS.fetch_sub(1, Ordering::Relaxed);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_line_of_the_panic_message() {
        assert_eq!(catch_panic(|| 1), Ok(1));
        let failed = || catch_panic(|| -> u8 { panic!("no {}\ndetails", "driver") });
        assert_eq!(failed(), Err("no driver".into()));
        assert_eq!(catch_panic(failed), Ok(Err("no driver".into())));
        assert_eq!(ACTIVE.get(), 0);
    }
}
