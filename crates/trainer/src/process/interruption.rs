//! Ctrl-C, SIGTERM and SIGHUP: the first asks the training to stop after its step, the second stops
//! the process.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tracing::info;

/// What the shell reports of a process that Ctrl-C ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// How often one of the signals came.
static REQUESTS: AtomicU32 = AtomicU32::new(0);

/// Handles the signals from here on, and says `first` at the first one.
///
/// # Errors
/// When the system refuses the handler.
pub(crate) fn listen(first: &'static str) -> Result<()> {
    let terminal = Terminal::now();
    on_signal(move || {
        if REQUESTS.fetch_add(1, Ordering::Relaxed) > 0 {
            // Whoever draws on the terminal waits for this lock, to the end.
            let mut out = std::io::stdout().lock();
            terminal.restore(&mut out);
            std::process::exit(EXIT_CODE.into());
        }
        info!("{first}; once more stops at once");
    })
    .context("cannot handle Ctrl-C")
}

/// Calls `handle`, in a thread of its own, for each signal.
#[cfg(unix)]
fn on_signal(handle: impl Fn() + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    if !is_hangup_ignored() {
        signals.add_signal(SIGHUP)?;
    }
    let listen = move || signals.forever().for_each(|_| handle());
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(listen)?;
    Ok(())
}

#[cfg(not(unix))]
fn on_signal(handle: impl Fn() + Send + 'static) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(handle)
}

/// Whether `nohup` started the process: it shall outlive its terminal. Known on Linux alone.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (signal_hook::consts::SIGHUP - 1) != 0)
}

/// Asks the training to stop, as the first signal does.
pub(crate) fn request() {
    REQUESTS.fetch_max(1, Ordering::Relaxed);
}

/// Whether the training shall stop.
pub(crate) fn is_requested() -> bool {
    REQUESTS.load(Ordering::Relaxed) > 0
}

/// The user stopped the program. What it takes to go on was saved, as the message says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);

/// Whether there is a terminal to read keys from.
pub(crate) fn has_terminal() -> bool {
    #[cfg(unix)]
    return terminal().is_some();
    #[cfg(not(unix))]
    return std::io::IsTerminal::is_terminal(&std::io::stdin());
}

/// Makes Ctrl-C a signal again under a dashboard, which opens the terminal such that it is a key.
/// Waits for that: the dashboard opens it in a thread of its own.
pub(crate) fn keep_signals() {
    #[cfg(unix)]
    {
        use rustix::termios::{
            LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr,
        };
        use std::time::Duration;
        /// Switches a special key off: POSIX's `_POSIX_VDISABLE`.
        const NO_KEY: u8 = if cfg!(target_os = "linux") { 0 } else { 0xff };
        let Some(terminal) = terminal() else {
            return;
        };
        for _ in 0..1000 {
            match tcgetattr(&terminal) {
                Ok(mut modes) if !modes.local_modes.contains(LocalModes::ISIG) => {
                    modes.local_modes.insert(LocalModes::ISIG);
                    // Stopped or aborted by a key, the dashboard would leave the terminal as it is.
                    modes.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
                    modes.special_codes[SpecialCodeIndex::VQUIT] = NO_KEY;
                    // Where the terminal refuses, the dashboard's own keys remain.
                    let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
                    return;
                }
                Ok(_) => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => return,
            }
        }
    }
}

/// What a dashboard reads keys from: standard input, or the terminal of the process.
#[cfg(unix)]
fn terminal() -> Option<std::os::fd::OwnedFd> {
    use std::fs::File;
    use std::io::{IsTerminal, stdin};
    use std::os::fd::AsFd;
    if stdin().is_terminal() {
        stdin().as_fd().try_clone_to_owned().ok()
    } else {
        File::open("/dev/tty").ok().map(Into::into)
    }
}

/// The terminal as it was before a dashboard opened it.
struct Terminal {
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
}

impl Terminal {
    fn now() -> Self {
        Self {
            #[cfg(unix)]
            modes: terminal().and_then(|terminal| rustix::termios::tcgetattr(terminal).ok()),
        }
    }

    fn restore(&self, out: &mut std::io::StdoutLock<'_>) {
        use std::io::{IsTerminal, Write};
        if out.is_terminal() {
            // No mouse reports, the usual screen, a visible cursor.
            let _ = out.write_all(
                b"\x1b[?1006l\x1b[?1015l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?1049l\x1b[?25h",
            );
            let _ = out.flush();
        }
        #[cfg(unix)]
        if let (Some(terminal), Some(modes)) = (terminal(), &self.modes) {
            let now = rustix::termios::OptionalActions::Now;
            let _ = rustix::termios::tcsetattr(terminal, now, modes);
        }
    }
}
