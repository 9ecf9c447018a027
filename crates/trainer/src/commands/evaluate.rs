//! `trainer evaluate RUN`: the metrics of a run on its test split.

use std::io::Write;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use data::ImageDataset;

use crate::commands::flags::RunFlags;
use crate::config::run_config::Config;
use crate::inference::evaluation::Evaluation;
use crate::run::images;
use crate::run::run_dir::RunDir;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
}

/// The flags of an evaluation, of one network or of several.
#[derive(Debug, clap::Args)]
pub(crate) struct EvaluationFlags {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Evaluate on the test split of this folder instead of the run's own data; if it contains pictures
    /// without a folder `test`, on all of them; if it contains the images of the run, on its test images
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// Test-time augmentation: average the probabilities of each image and N random transforms of it,
    /// drawn as in training
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
          value_parser = RangedU64ValueParser::<usize>::new().range(..=1000))]
    pub(crate) tta: usize,
}

/// Reads the test images of a run, or those of another data source.
///
/// # Errors
/// Returns an error if they cannot be read or do not fit the network.
pub(crate) fn test_images(
    run: &RunDir,
    config: &Config,
    data: Option<&str>,
) -> Result<ImageDataset> {
    match data {
        Some(source) => images::load_other_test(run, config, source),
        None => images::load_test(run, config),
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let EvaluationFlags { json, data, tta } = args.evaluation;
    let (run, classifier) = args.run.open()?;
    let test = test_images(&run, &classifier.config, data.as_deref())?;
    let evaluation = match tta {
        0 => classifier.evaluate(&test, |_| Ok(()))?,
        views => {
            let predictions = classifier.predict_split(&test, views)?;
            Evaluation::of_probabilities(classifier.classes(), test.labels(), &predictions)?
        }
    };
    let mut out = std::io::stdout().lock();
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&evaluation)?)?,
        false => writeln!(out, "{evaluation}")?,
    }
    Ok(())
}
