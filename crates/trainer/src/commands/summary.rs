//! `trainer summary`: the layers of a network.

use std::io::Write;

use anyhow::Result;

use crate::flags::SettingsFlags;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (config, _) = args.settings.resolve()?;
    let (height, width) = (config.images.height, config.images.width);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: {}", config.preset, config.about)?;
    writeln!(
        out,
        "{:8} {:24} {:16} {:>10}",
        "layer", "", "output", "parameters"
    )?;
    let input = format!("{:?}", [1, height, width]);
    writeln!(out, "{:8} {:24} {input:16} {:10}", "input", "grey image", 0)?;
    for layer in config.model.layers()? {
        let output = format!("{:?}", layer.output);
        writeln!(
            out,
            "{:8} {:24} {output:16} {:10}",
            layer.name, layer.kind, layer.parameters
        )?;
    }
    writeln!(out, "{:50} {:10}", "total", config.model.parameters()?)?;
    Ok(())
}
