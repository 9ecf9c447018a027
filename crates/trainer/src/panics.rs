//! Panics of libraries, as errors.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

/// Runs `work`; where it panics, gives the message back instead of printing it.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The hook is one for the whole process.
    static HOOK: Mutex<()> = Mutex::new(());
    let _lock = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_message() {
        assert_eq!(quietly(|| 1), Ok(1));
        let failed = quietly(|| -> u8 { panic!("no {}\ndetails", "driver") });
        assert_eq!(failed, Err("no driver".into()));
    }
}
