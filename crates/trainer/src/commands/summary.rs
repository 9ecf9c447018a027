//! `trainer summary`: the layers of a network.

use std::io::Write;

use anyhow::Result;

use crate::flags::SettingsFlags;
use crate::images::Kept;
use crate::run_dir::DEFAULT_ROOT;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (config, _) = args.settings.resolve(Kept::Read(DEFAULT_ROOT.as_ref()))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: {}", config.preset, config.about)?;
    writeln!(
        out,
        "{:8} {:24} {:16} {:>10}",
        "layer", "", "output", "parameters"
    )?;
    let input = format!("{:?}", config.images.shape());
    let kind = match config.images.channels {
        1 => "grey image",
        _ => "colour image",
    };
    writeln!(out, "{:8} {kind:24} {input:16} {:10}", "input", 0)?;
    for layer in config.model.layers()? {
        let operation = layer.operation.to_string();
        let output = format!("{:?}", layer.output);
        writeln!(
            out,
            "{:8} {operation:24} {output:16} {:10}",
            layer.name, layer.parameters
        )?;
    }
    writeln!(out, "{:50} {:10}", "total", config.model.parameters()?)?;
    Ok(())
}
