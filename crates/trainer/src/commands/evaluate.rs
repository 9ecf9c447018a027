//! `trainer evaluate RUN`: the metrics of a run on its test split.

use std::io::Write;

use anyhow::Result;
use data::ImageDataset;

use crate::commands::flags::RunFlags;
use crate::config::run_config::Config;
use crate::inference::evaluation::Evaluation;
use crate::inference::test_time_augmentation::TestTimeAugmentation;
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
    /// Test-time augmentation: average over several views of each image
    ///
    /// N averages the probabilities of the image and N random transforms of it, drawn as in training. flip averages
    /// the logits of the image and its mirror image; flip-shift also those of two copies shifted by one pixel, with a
    /// quarter of the weight each
    #[arg(
        long,
        value_name = "N|flip|flip-shift",
        default_value = "0",
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub(crate) tta: TestTimeAugmentation,
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
        TestTimeAugmentation::NONE => classifier.evaluate(&test, |_| Ok(()))?,
        augmentation => {
            let predictions = classifier.predict_split(&test, augmentation)?;
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
