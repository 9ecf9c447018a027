//! What a run was made with, for its log.

use std::env;

/// As `Cargo.toml` pins it.
const BURN_VERSION: &str = "0.22.1";

/// The command line, versions and threads.
pub(crate) fn describe() -> String {
    let command: Vec<String> = env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    format!(
        "command: {}\ntrainer {}, burn {BURN_VERSION}, {} {}, {} threads",
        command.join(" "),
        env!("CARGO_PKG_VERSION"),
        env::consts::OS,
        env::consts::ARCH,
        rayon::current_num_threads(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_pinned_one() {
        let pin = format!("burn = {{ version = \"={BURN_VERSION}\"");
        assert!(include_str!("../../../Cargo.toml").contains(&pin));
    }
}
