//! `trainer evaluate RUN`: the test figures of a run, from its folder alone.

use std::io::Write;

use anyhow::Result;

use crate::classifier::Classifier;
use crate::evaluation::evaluate;
use crate::flags::RunFlags;
use crate::images;
use crate::training::evaluation_loader;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Judge on the test split of this folder instead of the run's own data; of pictures without a
    /// folder `test`, on all of them
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (run, classifier) = args.run.open()?;
    let Classifier {
        config,
        model,
        device,
    } = &classifier;
    let splits = images::of_run(&run, config, args.data.as_deref())?;
    let loader = evaluation_loader(config, &splits.test, device);
    let evaluation = evaluate(model, &loader, &config.images.classes, |_, _| Ok(()))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&evaluation)?)?;
    } else {
        writeln!(out, "{evaluation}")?;
    }
    Ok(())
}
