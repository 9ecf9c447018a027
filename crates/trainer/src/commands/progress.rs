//! `--progress`: how a training shows its progress.

use std::io::IsTerminal;

use anyhow::{Result, ensure};

use crate::process::interruption;
use crate::training::progress::Style;

/// The value of `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Progress {
    /// tui on a terminal, otherwise plain
    Auto,
    /// burn-train's dashboard
    Tui,
    /// A line every 100 batches and one per epoch
    Plain,
    /// Only the result, as with --quiet
    None,
}

impl Progress {
    /// Resolves `auto` by whether the process has a terminal.
    ///
    /// # Errors
    /// Returns an error for `tui` without a terminal.
    pub(crate) fn style(self) -> Result<Style> {
        let is_terminal = std::io::stdout().is_terminal() && interruption::has_terminal();
        match self {
            Self::Auto if is_terminal => Ok(Style::Dashboard),
            Self::Auto | Self::Plain | Self::None => Ok(Style::Lines),
            Self::Tui => {
                ensure!(is_terminal, "--progress tui: not on a terminal");
                Ok(Style::Dashboard)
            }
        }
    }
}
