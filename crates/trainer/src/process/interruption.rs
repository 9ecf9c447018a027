//! Ctrl-C, SIGTERM and SIGHUP: the first signal requests a graceful stop, the second one exits at once.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tracing::info;

/// The exit code of an interrupted process: 128 plus the number of SIGINT, as shells report it.
pub(crate) const EXIT_CODE: u8 = 130;

/// Number of signals received.
static SIGNALS: AtomicU32 = AtomicU32::new(0);

/// Installs the signal handler. It logs `message` at the first signal.
///
/// # Errors
/// Returns an error if the handler cannot be installed.
pub(crate) fn listen(message: &'static str) -> Result<()> {
    let terminal = TerminalState::save();
    on_signal(move || {
        if SIGNALS.fetch_add(1, Ordering::Relaxed) > 0 {
            // Held until the exit, so that nothing draws on the restored terminal.
            let mut out = std::io::stdout().lock();
            terminal.restore(&mut out);
            std::process::exit(EXIT_CODE.into());
        }
        info!("{message}; a second signal exits at once");
    })
    .context("cannot handle Ctrl-C")
}

/// Calls `handle` for each signal, in a separate thread.
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

/// Whether the process ignores SIGHUP, as under `nohup`. Detected on Linux only.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (signal_hook::consts::SIGHUP - 1) != 0)
}

/// Requests a graceful stop, as the first signal does.
pub(crate) fn request() {
    SIGNALS.fetch_max(1, Ordering::Relaxed);
}

/// Whether a stop is requested.
pub(crate) fn is_requested() -> bool {
    SIGNALS.load(Ordering::Relaxed) > 0
}

/// The error of a command that the user interrupted. Its message names the command to resume with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);

/// Whether there is a terminal to read key presses from.
pub(crate) fn has_terminal() -> bool {
    #[cfg(unix)]
    return terminal().is_some();
    #[cfg(not(unix))]
    return std::io::IsTerminal::is_terminal(&std::io::stdin());
}

/// Makes Ctrl-C send a signal again under the dashboard, which sets the terminal to raw mode. Waits for
/// up to ten seconds until the thread of the dashboard has done so.
pub(crate) fn keep_signals() {
    #[cfg(unix)]
    {
        use rustix::termios::{
            LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr,
        };
        use std::time::Duration;
        /// Disables a special character: POSIX's `_POSIX_VDISABLE`.
        const DISABLED: u8 = if cfg!(target_os = "linux") { 0 } else { 0xff };
        let Some(terminal) = terminal() else {
            return;
        };
        for _ in 0..1000 {
            match tcgetattr(&terminal) {
                Ok(mut modes) if !modes.local_modes.contains(LocalModes::ISIG) => {
                    modes.local_modes.insert(LocalModes::ISIG);
                    // A process suspended or aborted by a key would leave the terminal in raw mode.
                    modes.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
                    modes.special_codes[SpecialCodeIndex::VQUIT] = DISABLED;
                    // If this fails, the keys of the dashboard still work.
                    let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
                    return;
                }
                Ok(_) => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => return,
            }
        }
    }
}

/// Returns the terminal that the dashboard reads keys from: standard input, or that of the process.
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

/// The state of the terminal before the dashboard changes it.
struct TerminalState {
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
}

impl TerminalState {
    fn save() -> Self {
        Self {
            #[cfg(unix)]
            modes: terminal().and_then(|terminal| rustix::termios::tcgetattr(terminal).ok()),
        }
    }

    fn restore(&self, out: &mut std::io::StdoutLock<'_>) {
        use std::io::{IsTerminal, Write};
        if out.is_terminal() {
            // Disables mouse reports, leaves the alternate screen, shows the cursor.
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
