//! `trainer presets`: lists the built-in configurations.

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;

use crate::config::presets;
use crate::config::settings::Settings;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all settings of a preset as a TOML file for --config
    Show {
        /// Name of the preset
        name: String,
    },
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match args.command {
        Some(Command::Show { name }) => write!(out, "{}", Settings::preset(&name)?.to_toml())?,
        None => {
            for name in presets::names() {
                let settings = Settings::preset(name)?;
                let parameters = settings.model()?.parameters()?;
                writeln!(
                    out,
                    "{name:16} {parameters:>9} parameters  {}",
                    settings.about()
                )?;
            }
        }
    }
    Ok(())
}
