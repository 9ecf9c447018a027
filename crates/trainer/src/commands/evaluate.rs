//! `trainer evaluate RUN`: the metrics of a run on its test split.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use data::ImageDataset;
use tracing::info;

use crate::commands::flags::RunFlags;
use crate::config::run_config::Config;
use crate::inference::calibration::CalibrationError;
use crate::inference::evaluation::Evaluation;
use crate::inference::labeled_prediction::{
    Mistake, labeled, mistake_rows, mistakes, predict_dataset,
};
use crate::inference::test_time_augmentation::TestTimeAugmentation;
use crate::run::atomic_file;
use crate::run::images;
use crate::run::run_dir::RunDir;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
    /// Write the misclassified images to this CSV or JSON file, the worst mistakes first
    #[arg(long, value_name = "FILE")]
    mistakes: Option<PathBuf>,
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
    let (mut evaluation, predictions) = match tta {
        TestTimeAugmentation::NONE => predict_dataset(&classifier, &test)?,
        augmentation => {
            let predictions = classifier.predict_split(&test, augmentation)?;
            let evaluation =
                Evaluation::of_probabilities(classifier.classes(), test.labels(), &predictions)?;
            (evaluation, labeled(predictions, &test))
        }
    };
    let labels_of = predictions
        .iter()
        .map(|prediction| (&prediction.probabilities, prediction.label));
    let temperature = classifier.confidence.as_ref();
    // Averages over views have another calibration.
    let temperature = temperature.filter(|_| tta == TestTimeAugmentation::NONE);
    let temperature = temperature.map(|confidence| confidence.temperature);
    evaluation.calibration_error = Some(CalibrationError::of(labels_of, temperature));
    if let Some(path) = &args.mistakes {
        let mistakes = mistake_rows(&mistakes(&predictions), &test, classifier.classes());
        write_mistakes(path, &mistakes)?;
        info!(
            "{} misclassified images in {}",
            mistakes.len(),
            path.display()
        );
    }
    let mut out = std::io::stdout().lock();
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&evaluation)?)?,
        false => writeln!(out, "{evaluation}")?,
    }
    Ok(())
}

/// Writes the misclassified images as CSV, or as JSON if the file is called so.
fn write_mistakes(path: &Path, mistakes: &[Mistake]) -> Result<()> {
    let is_json = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let bytes = match is_json {
        true => serde_json::to_vec_pretty(mistakes)?,
        false => {
            let mut table = csv::WriterBuilder::new()
                .has_headers(false)
                .from_writer(Vec::new());
            table.write_record([
                "index",
                "path",
                "class",
                "predicted",
                "probability",
                "probability_of_class",
            ])?;
            for mistake in mistakes {
                table.serialize(mistake)?;
            }
            table
                .into_inner()
                .map_err(csv::IntoInnerError::into_error)?
        }
    };
    atomic_file::write(path, &bytes)
}
