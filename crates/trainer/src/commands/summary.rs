//! `trainer summary`: prints the layer table of a network.

use std::io::Write;

use anyhow::Result;

use crate::commands::flags::SettingsFlags;
use crate::process::printable::printable;
use crate::process::table::{Align, Table};
use crate::run::picture_cache::PictureCache;
use crate::run::run_dir::DEFAULT_ROOT;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (config, _) = args
        .settings
        .resolve(PictureCache::Read(DEFAULT_ROOT.as_ref()))?;
    let mut out = std::io::stdout().lock();
    let title = format!("{}: {}", config.preset, config.about);
    writeln!(out, "{}", printable(title))?;
    let mut table = Table::new(["layer", "operation", "output", "parameters"])
        .align(1, Align::Left)
        .align(2, Align::Left);
    let mut row = |name: &str, operation: &str, output: &str, parameters: usize| {
        table.row([name, operation, output, &parameters.to_string()]);
    };
    let kind = match config.images.channels {
        1 => "gray image",
        _ => "color image",
    };
    row("input", kind, &format!("{:?}", config.images.shape()), 0);
    for layer in config.model.layers()? {
        let output = format!("{:?}", layer.output);
        row(
            &layer.name,
            &layer.operation.to_string(),
            &output,
            layer.parameters,
        );
    }
    row("total", "", "", config.model.parameters()?);
    writeln!(out, "{table}")?;
    Ok(())
}
