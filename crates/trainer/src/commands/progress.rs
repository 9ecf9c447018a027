//! `--progress`: what a training shows.

use std::io::IsTerminal;

use anyhow::{Result, ensure};

use crate::process::interruption;
use crate::training::progress::Style;

/// What `--progress` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Progress {
    /// The dashboard on a terminal, lines elsewhere
    Auto,
    /// burn-train's dashboard
    Tui,
    /// A line every 100 batches and one per epoch
    Plain,
    /// Nothing but the result, as --quiet
    None,
}

impl Progress {
    /// What it comes to here.
    ///
    /// # Errors
    /// When a dashboard is asked for and there is no terminal.
    pub(crate) fn style(self) -> Result<Style> {
        let is_terminal = std::io::stdout().is_terminal() && interruption::has_terminal();
        match self {
            Self::Auto if is_terminal => Ok(Style::Dashboard),
            Self::Auto | Self::Plain | Self::None => Ok(Style::Lines),
            Self::Tui => {
                ensure!(is_terminal, "--progress tui: there is no terminal");
                Ok(Style::Dashboard)
            }
        }
    }
}
