//! `trainer summary`: the layers of a network.

use std::io::Write;

use anyhow::Result;

use crate::commands::flags::SettingsFlags;
use crate::run::images::PictureCache;
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
    writeln!(out, "{}: {}", config.preset, config.about)?;
    let layers = config.model.layers()?;
    let operations = layers.iter().map(|layer| layer.operation.to_string().len());
    let width = operations.max().unwrap_or(0).max(24);
    writeln!(
        out,
        "{:8} {:width$} {:16} {:>10}",
        "layer", "", "output", "parameters"
    )?;
    let input = format!("{:?}", config.images.shape());
    let kind = match config.images.channels {
        1 => "grey image",
        _ => "colour image",
    };
    writeln!(out, "{:8} {kind:width$} {input:16} {:10}", "input", 0)?;
    for layer in layers {
        let operation = layer.operation.to_string();
        let output = format!("{:?}", layer.output);
        writeln!(
            out,
            "{:8} {operation:width$} {output:16} {:10}",
            layer.name, layer.parameters
        )?;
    }
    let total = config.model.parameters()?;
    writeln!(out, "{:8} {:width$} {:16} {total:10}", "total", "", "")?;
    Ok(())
}
