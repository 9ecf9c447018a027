//! `trainer presets`: the configurations that ship with the binary.

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;

use crate::presets;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all settings of a preset, as a file for --config
    Show {
        /// The preset
        name: String,
    },
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match args.command {
        Some(Command::Show { name }) => {
            let config = Settings::preset(&name)?.unresolved()?;
            write!(out, "{}", config.to_toml()?)?;
        }
        None => {
            for name in presets::names() {
                let config = Settings::preset(name)?.unresolved()?;
                let layers = config.model.layers()?;
                let parameters: usize = layers.iter().map(|layer| layer.parameters).sum();
                writeln!(
                    out,
                    "{name:16} {parameters:>9} parameters  {}",
                    config.about
                )?;
            }
        }
    }
    Ok(())
}
