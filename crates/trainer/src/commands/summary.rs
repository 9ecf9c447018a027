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
    let (config, ..) = args
        .settings
        .resolve(PictureCache::Read(DEFAULT_ROOT.as_ref()))?;
    let mut out = std::io::stdout().lock();
    let title = format!("{}: {}", config.preset, config.about);
    writeln!(out, "{}", printable(title))?;
    let header = [
        "layer",
        "operation",
        "output",
        "receptive field",
        "multiply-adds",
        "parameters",
    ];
    let mut table = Table::new(header)
        .align(1, Align::Left)
        .align(2, Align::Left);
    let kind = match config.images.channels {
        1 => "gray image",
        _ => "color image",
    };
    let shape = format!("{:?}", config.images.shape());
    table.row(["input", kind, &shape, "1x1", "0", "0"]);
    let (mut multiply_adds, mut parameters) = (0, 0);
    for layer in config.model.layers()? {
        let [height, width] = layer.receptive_field;
        table.row([
            layer.name.as_str(),
            &layer.operation.to_string(),
            &format!("{:?}", layer.output),
            &format!("{height}x{width}"),
            &layer.multiply_adds().to_string(),
            &layer.parameters.to_string(),
        ]);
        multiply_adds += layer.multiply_adds();
        parameters += layer.parameters;
    }
    let [multiply_adds, parameters] = [multiply_adds, parameters].map(|total| total.to_string());
    table.row(["total", "", "", "", &multiply_adds, &parameters]);
    writeln!(out, "{table}")?;
    Ok(())
}
