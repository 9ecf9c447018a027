//! `trainer evaluate RUN`: the test figures of a run, from its folder alone.

use std::io::Write;

use anyhow::Result;

use crate::commands::flags::RunFlags;
use crate::inference::classifier::Classifier;
use crate::inference::evaluation::{Evaluation, evaluate};
use crate::run::images;
use crate::run::loaders::evaluation_loader;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    #[command(flatten)]
    judge: JudgeFlags,
}

/// How test images are judged, by one network or by several.
#[derive(Debug, clap::Args)]
pub(crate) struct JudgeFlags {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Judge on the test split of this folder instead of the runs' own data; of pictures without a
    /// folder `test`, on all of them
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// Test-time augmentation: judge by the mean over each image and N changes of it, made like those
    /// that training made
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(..=1000))]
    pub(crate) tta: usize,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (run, classifier) = args.run.open()?;
    let Classifier {
        config,
        model,
        device,
    } = &classifier;
    let test = images::load_for_trained(&run, config, args.judge.data.as_deref())?.test;
    let evaluation = match args.judge.tta {
        0 => {
            let loader = evaluation_loader(config, &test, device);
            evaluate(model, &loader, classifier.classes(), |_| Ok(()))?
        }
        changes => {
            let found = classifier.judge(&test, changes)?;
            Evaluation::of_probabilities(classifier.classes(), test.labels(), &found)?
        }
    };
    let mut out = std::io::stdout().lock();
    if args.judge.json {
        writeln!(out, "{}", serde_json::to_string(&evaluation)?)?;
    } else {
        writeln!(out, "{evaluation}")?;
    }
    Ok(())
}
