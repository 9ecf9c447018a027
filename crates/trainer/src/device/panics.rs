//! Panics of libraries, as errors.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::debug;

thread_local! {
    /// Calls of [`catch_panic`] that this thread is in.
    static QUIET: Cell<usize> = const { Cell::new(0) };
}

/// Calls of [`catch_panic_in_all_threads`] that the process is in.
static QUIET_EVERYWHERE: AtomicUsize = AtomicUsize::new(0);

/// Runs `work`; where it panics, gives the message back instead of printing it.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The hook is one for the whole process; who is quiet, is so in one thread.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if QUIET.get() == 0 && QUIET_EVERYWHERE.load(Ordering::Relaxed) == 0 {
                print(panic);
            } else {
                debug!("{panic}");
            }
        }));
    });
    QUIET.set(QUIET.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(QUIET.get() - 1);
    result.map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        text.and_then(|text| text.lines().next())
            .unwrap_or("no reason given")
            .into()
    })
}

/// The same for work that other threads help with, whose panics it makes its own.
pub(crate) fn catch_panic_in_all_threads<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    QUIET_EVERYWHERE.fetch_add(1, Ordering::Relaxed);
    let result = catch_panic(work);
    QUIET_EVERYWHERE.fetch_sub(1, Ordering::Relaxed);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_message() {
        assert_eq!(catch_panic(|| 1), Ok(1));
        let failed = || catch_panic(|| -> u8 { panic!("no {}\ndetails", "driver") });
        assert_eq!(failed(), Err("no driver".into()));
        assert_eq!(catch_panic(failed), Ok(Err("no driver".into())));
        assert_eq!(QUIET.get(), 0);
    }
}
