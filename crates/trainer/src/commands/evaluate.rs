//! `trainer evaluate RUN`: the metrics of a run on its test split.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use data::ImageDataset;
use tracing::info;

use crate::commands::flags::RunFlags;
use crate::config::run_config::Config;
use crate::inference::evaluation::Evaluation;
use crate::inference::labeled_prediction::{LabeledPrediction, mistakes, predict_dataset};
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
    /// Write the misclassified images to this CSV file, the surest mistakes first
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
    let (evaluation, predictions) = match tta {
        TestTimeAugmentation::NONE => predict_dataset(&classifier, &test)?,
        augmentation => {
            let predictions = classifier.predict_split(&test, augmentation)?;
            let evaluation =
                Evaluation::of_probabilities(classifier.classes(), test.labels(), &predictions)?;
            let labeled = predictions
                .into_iter()
                .enumerate()
                .map(|(index, probabilities)| LabeledPrediction {
                    index,
                    label: test.label(index).into(),
                    probabilities,
                });
            (evaluation, labeled.collect())
        }
    };
    if let Some(path) = &args.mistakes {
        let count = write_mistakes(path, &predictions, &test, classifier.classes())?;
        info!("{count} misclassified images in {}", path.display());
    }
    let mut out = std::io::stdout().lock();
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&evaluation)?)?,
        false => writeln!(out, "{evaluation}")?,
    }
    Ok(())
}

/// Writes a table of the misclassified images: index in the split, file if it has one, class, predicted class, and the
/// probabilities of both. Returns their number.
fn write_mistakes(
    path: &Path,
    predictions: &[LabeledPrediction],
    images: &ImageDataset,
    classes: &[String],
) -> Result<usize> {
    let files: Option<Vec<&str>> = images
        .files()
        .map(|files| files.map(|file| file.path.as_str()).collect());
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record([
        "index",
        "path",
        "class",
        "predicted",
        "probability",
        "probability_of_class",
    ])?;
    let mistakes = mistakes(predictions);
    for mistake in &mistakes {
        let (predicted, probability) = mistake.probabilities.best();
        table.write_record([
            mistake.index.to_string().as_str(),
            files.as_ref().map_or("", |files| files[mistake.index]),
            &classes[mistake.label],
            &classes[predicted],
            &format!("{probability:.6}"),
            &format!("{:.6}", mistake.probabilities.as_slice()[mistake.label]),
        ])?;
    }
    let table = table.into_inner().map_err(|error| error.into_error())?;
    atomic_file::write(path, &table).with_context(|| path.display().to_string())?;
    Ok(mistakes.len())
}
