//! `trainer evaluate RUN`: the metrics of a run on its test split.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ArgGroup;
use clap::builder::RangedU64ValueParser;
use data::ImageDataset;
use serde::Serialize;
use tracing::{info, warn};

use crate::commands::flags::RunFlags;
use crate::config::run_config::Config;
use crate::figures;
use crate::inference::adversarial::{AdversarialAccuracy, DEFAULT_IMAGES, Epsilon};
use crate::inference::calibration::CalibrationError;
use crate::inference::evaluation::Evaluation;
use crate::inference::labeled_prediction::{
    Mistake, labeled, mistake_rows, mistakes, predict_dataset,
};
use crate::inference::robustness::CorruptionAccuracy;
use crate::inference::test_time_augmentation::TestTimeAugmentation;
use crate::run::atomic_file;
use crate::run::images;
use crate::run::run_dir::RunDir;

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new(ROBUSTNESS).args(["corruptions", "adversarial"]).multiple(true))]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
    #[command(flatten)]
    evaluation: EvaluationFlags,
    /// Also measure the accuracy under corruptions, such as blur and noise, and draw it in figures/corruptions
    #[arg(long, conflicts_with = "tta")]
    corruptions: bool,
    /// Also measure the accuracy on adversarial images (FGSM and PGD), and draw it in figures/adversarial
    ///
    /// EPSILON is the largest change of a pixel as a fraction of its range, such as 0.05,0.1,0.2
    #[arg(
        long,
        value_name = "EPSILON,...",
        value_delimiter = ',',
        allow_negative_numbers = true,
        conflicts_with = "tta"
    )]
    adversarial: Vec<Epsilon>,
    /// Corrupt and attack N images, evenly spread over the test split [default: all and 1000]
    #[arg(
        long,
        value_name = "N",
        requires = ROBUSTNESS,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    limit: Option<usize>,
    /// Write the misclassified images to this CSV or JSON file, the worst mistakes first
    #[arg(long, value_name = "FILE")]
    mistakes: Option<PathBuf>,
}

/// Id of the flags that ask for the accuracy on changed images.
const ROBUSTNESS: &str = "robustness";

/// The result as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    evaluation: Evaluation,
    #[serde(skip_serializing_if = "Option::is_none")]
    corruptions: Option<CorruptionAccuracy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adversarial: Option<AdversarialAccuracy>,
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
    let limit = args.limit.unwrap_or(usize::MAX);
    let corruptions = args
        .corruptions
        .then(|| CorruptionAccuracy::measure(&classifier, &test, limit));
    let limit = args.limit.unwrap_or(DEFAULT_IMAGES);
    let adversarial = (!args.adversarial.is_empty())
        .then(|| AdversarialAccuracy::measure(&classifier, &test, &args.adversarial, limit));
    let report = Report {
        evaluation,
        corruptions: corruptions.transpose()?,
        adversarial: adversarial.transpose()?,
    };
    let mut out = std::io::stdout().lock();
    match json {
        true => writeln!(out, "{}", serde_json::to_string(&report)?)?,
        false => writeln!(out, "{report}")?,
    }
    report.draw(&run);
    Ok(())
}

impl Report {
    /// Draws the figures. In a folder that is read-only, there are none.
    fn draw(&self, run: &RunDir) {
        let corruptions = self.corruptions.as_ref().map(figures::corruptions);
        let adversarial = self.adversarial.as_ref().map(figures::adversarial);
        for figure in corruptions.into_iter().chain(adversarial) {
            match figure.save(&run.figure_path(&figure.name)) {
                Ok([svg, png]) => info!("figure: {} and {}", svg.display(), png.display()),
                Err(error) => warn!("no figure: {error:#}"),
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.evaluation)?;
        if let Some(corruptions) = &self.corruptions {
            write!(f, "\n\n{corruptions}")?;
        }
        if let Some(adversarial) = &self.adversarial {
            write!(f, "\n\n{adversarial}")?;
        }
        Ok(())
    }
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
