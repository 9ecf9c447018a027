//! The environment of a run: command line, versions, hardware.

use std::{env, fmt};

use serde::{Deserialize, Serialize};

use crate::process::printable::printable;

/// The version that `Cargo.toml` pins.
const BURN_VERSION: &str = "0.22.1";

/// The environment of a process that trains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// The command line, quoted for a shell.
    pub(crate) command: String,
    /// Version of this program.
    pub(crate) trainer: String,
    /// Version of Burn.
    pub(crate) burn: String,
    /// Operating system and architecture.
    pub(crate) system: String,
    /// Number of threads of the CPU.
    pub(crate) threads: usize,
    /// Names of the devices.
    pub(crate) device: String,
}

impl Environment {
    /// Returns the environment of this process, which trains on `device`.
    pub(crate) fn of_this_process(device: &str) -> Self {
        let command: Vec<String> = env::args_os()
            .map(|argument| quoted(&argument.to_string_lossy()))
            .collect();
        Self {
            command: command.join(" "),
            trainer: env!("CARGO_PKG_VERSION").into(),
            burn: BURN_VERSION.into(),
            system: format!("{} {}", env::consts::OS, env::consts::ARCH),
            threads: rayon::current_num_threads(),
            device: device.into(),
        }
    }
}

/// Quotes an argument for a POSIX shell, if necessary.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    match !argument.is_empty() && argument.chars().all(is_plain) {
        true => argument.into(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command,
            trainer,
            burn,
            system,
            threads,
            device: _,
        } = self;
        write!(
            f,
            "command: {}\ntrainer {trainer}, burn {burn}, {system}, {threads} threads",
            printable(command)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_arguments_that_need_it() {
        assert_eq!(quoted("artifacts/runs/a-1"), "artifacts/runs/a-1");
        assert_eq!(quoted("my runs/a"), "'my runs/a'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn burn_version_is_the_pinned_one() {
        let pin = format!("burn = {{ version = \"={BURN_VERSION}\"");
        assert!(include_str!("../../../../Cargo.toml").contains(&pin));
    }
}
