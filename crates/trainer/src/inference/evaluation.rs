//! Evaluation of a network on labeled images.

use std::fmt;
use std::io::ErrorKind;

use anyhow::{Context, Error, Result, ensure};
use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::tensor::{Int, Tensor};
use classifier::Probabilities;
use data::{Batch, Loader};
use model::{ConvNet, cross_entropy};
use serde::{Deserialize, Serialize};

use crate::inference::calibration::{CalibrationError, wilson_interval};
use crate::process::table::Table;
use crate::run::metrics::Metrics;
use crate::run::run_dir::RunDir;

/// Maximum number of images of an evaluation that is read from a file, such that no sum overflows.
const MAX_EXAMPLES: u64 = 1 << 53;

/// The result of evaluating a network on labeled images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    /// Fraction classified correctly.
    pub(crate) accuracy: f64,
    /// Mean cross-entropy.
    pub(crate) loss: f64,
    /// Fraction of the images whose class is among the five most likely ones; with more than ten classes. Evaluations of older
    /// versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) top5_accuracy: Option<f64>,
    /// Means over the classes, which count equally however many images they have. Evaluations of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) macro_average: Option<MacroAverage>,
    /// Whether the probabilities agree with the accuracy, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calibration_error: Option<CalibrationError>,
    /// Number of images.
    pub(crate) examples: u64,
    /// Metrics of each class.
    pub(crate) classes: Vec<ClassMetrics>,
    /// Confusion matrix: `confusion[class][predicted]` counts images.
    pub(crate) confusion: Vec<Vec<u64>>,
}

/// Metrics of one class against the rest. A ratio with denominator 0 is 0, as in scikit-learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClassMetrics {
    /// Name of the class.
    pub(crate) class: String,
    /// Fraction of the predictions of this class that are correct.
    pub(crate) precision: f64,
    /// Fraction of the images of this class that are classified correctly.
    pub(crate) recall: f64,
    /// Harmonic mean of precision and recall.
    pub(crate) f1: f64,
    /// Number of images of this class.
    pub(crate) support: u64,
}

/// Means of the metrics of the classes that have images. The mean recall is the balanced accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MacroAverage {
    pub(crate) precision: f64,
    pub(crate) recall: f64,
    pub(crate) f1: f64,
}

/// One evaluated batch.
pub(crate) struct EvaluatedBatch {
    /// Mean cross-entropy, `[1]`.
    pub(crate) loss: Tensor<1>,
    /// `[N, classes]`.
    pub(crate) logits: Tensor<2>,
    /// `[N]`.
    pub(crate) targets: Tensor<1, Int>,
    /// Number of images evaluated so far.
    pub(crate) progress: Progress,
}

/// Evaluates `model` on all images of the loader; `observe` is called with each batch.
///
/// # Errors
/// Returns an error if there are no images, the loss is not finite, or `observe` fails.
///
/// # Panics
/// Panics if a target is not below the number of classes.
pub(crate) fn evaluate(
    model: &ConvNet,
    loader: &Loader,
    classes: &[String],
    mut observe: impl FnMut(EvaluatedBatch) -> Result<()>,
) -> Result<Evaluation> {
    let mut sums = Sums::new(classes);
    for_each_batch(loader, 1, |batch, progress| {
        let Batch {
            images, targets, ..
        } = batch;
        let logits = model.forward(images);
        let mean_loss = cross_entropy(logits.clone(), targets.clone(), 0.0);
        let actual = targets.clone().into_data();
        let predicted = logits.clone().argmax(1).into_data();
        for (actual, predicted) in actual.iter::<i64>().zip(predicted.iter::<i64>()) {
            sums.confusion[actual as usize][predicted as usize] += 1;
        }
        if sums.counts_top5() {
            let scores = logits.clone().into_data();
            let scores: Vec<f32> = scores.iter::<f32>().collect();
            for (scores, actual) in scores.chunks(classes.len()).zip(actual.iter::<i64>()) {
                sums.top5 += u64::from(is_in_top5(scores, actual as usize));
            }
        }
        let loss = f64::from(mean_loss.clone().into_scalar::<f32>());
        ensure!(loss.is_finite(), "the loss is {loss}");
        sums.loss += loss * targets.dims()[0] as f64;
        observe(EvaluatedBatch {
            loss: mean_loss,
            logits,
            targets,
            progress,
        })
    })?;
    sums.into_evaluation(classes)
}

/// Sums over the images of an evaluation.
struct Sums {
    loss: f64,
    /// Number of images whose class is among the five most likely ones.
    top5: u64,
    /// `confusion[class][predicted]` counts images.
    confusion: Vec<Vec<u64>>,
}

impl Sums {
    fn new(classes: &[String]) -> Self {
        Self {
            loss: 0.0,
            top5: 0,
            confusion: vec![vec![0; classes.len()]; classes.len()],
        }
    }

    /// Whether there are so many classes that the five most likely ones are of interest.
    fn counts_top5(&self) -> bool {
        self.confusion.len() > 10
    }

    fn into_evaluation(self, classes: &[String]) -> Result<Evaluation> {
        let top5 = self.counts_top5().then_some(self.top5);
        let mut evaluation = Evaluation::from_sums(classes, self.confusion, self.loss)?;
        evaluation.top5_accuracy = top5.map(|hits| hits as f64 / evaluation.examples as f64);
        Ok(evaluation)
    }
}

/// Whether a class is among the five with the highest scores. Of equal scores, the first classes count.
fn is_in_top5(scores: &[f32], class: usize) -> bool {
    let own = scores[class];
    let better = |(other, &score): (usize, &f32)| score > own || (score == own && other < class);
    scores
        .iter()
        .enumerate()
        .filter(|score| better(*score))
        .count()
        < 5
}

/// Calls `observe` with each batch of a pass and its progress. The epoch selects the random numbers of the loader's
/// augmentation.
///
/// # Errors
/// Returns an error if a batch cannot be loaded or `observe` fails.
pub(crate) fn for_each_batch(
    loader: &Loader,
    epoch: u64,
    mut observe: impl FnMut(Batch, Progress) -> Result<()>,
) -> Result<()> {
    let mut batches = loader.batches(epoch);
    while let Some(batch) = batches.next_batch() {
        observe(batch?, batches.progress())?;
    }
    Ok(())
}

fn class_metrics(classes: &[String], confusion: &[Vec<u64>]) -> Vec<ClassMetrics> {
    let ratio = |part: u64, whole: u64| match whole {
        0 => 0.0,
        _ => part as f64 / whole as f64,
    };
    let metrics = |(index, class): (usize, &String)| {
        let hits = confusion[index][index];
        let support: u64 = confusion[index].iter().sum();
        let predicted: u64 = confusion.iter().map(|row| row[index]).sum();
        ClassMetrics {
            class: class.clone(),
            precision: ratio(hits, predicted),
            recall: ratio(hits, support),
            // The harmonic mean of hits/predicted and hits/support.
            f1: ratio(2 * hits, predicted + support),
            support,
        }
    };
    classes.iter().enumerate().map(metrics).collect()
}

impl Evaluation {
    /// Evaluates predicted probabilities against labels.
    ///
    /// # Errors
    /// Returns an error if there are no predictions.
    ///
    /// # Panics
    /// Panics if a label is not below the number of classes.
    pub(crate) fn of_probabilities(
        classes: &[String],
        labels: impl Iterator<Item = u8>,
        predictions: &[Probabilities],
    ) -> Result<Self> {
        let mut sums = Sums::new(classes);
        for (label, probabilities) in labels.zip(predictions) {
            let label = usize::from(label);
            sums.confusion[label][probabilities.best().0] += 1;
            sums.loss += f64::from(probabilities.loss(label));
            sums.top5 += u64::from(is_in_top5(probabilities.as_slice(), label));
        }
        sums.into_evaluation(classes)
    }

    /// Computes the evaluation from a confusion matrix and the sum of losses.
    fn from_sums(classes: &[String], confusion: Vec<Vec<u64>>, loss_sum: f64) -> Result<Self> {
        let examples: u64 = confusion.iter().flatten().sum();
        ensure!(examples > 0, "no images to evaluate");
        let hits: u64 = (0..classes.len())
            .map(|class| confusion[class][class])
            .sum();
        let classes = class_metrics(classes, &confusion);
        Ok(Self {
            accuracy: hits as f64 / examples as f64,
            loss: loss_sum / examples as f64,
            top5_accuracy: None,
            macro_average: Some(MacroAverage::of(&classes)),
            calibration_error: None,
            examples,
            classes,
            confusion,
        })
    }

    /// Reads the evaluation of a run on its test split; `None` if there is none yet.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(crate) fn of_run(run: &RunDir) -> Result<Option<Self>> {
        let path = run.evaluation_path();
        let place = || path.display().to_string();
        match run.read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => {
                let evaluation = read.map_err(Error::new);
                let evaluation = evaluation.and_then(|bytes| Self::from_json(&bytes));
                Ok(Some(evaluation.with_context(place)?))
            }
        }
    }

    /// Decodes an evaluation, whose metrics must follow from its confusion matrix.
    ///
    /// # Errors
    /// Returns an error if `json` is not an evaluation or inconsistent.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self> {
        let evaluation: Self = serde_json::from_slice(json)?;
        let classes = evaluation.classes.iter().map(|row| row.class.clone());
        let classes: Vec<String> = classes.collect();
        let confusion = &evaluation.confusion;
        ensure!(
            confusion.len() == classes.len()
                && confusion.iter().all(|row| row.len() == classes.len()),
            "expected a confusion matrix of {0} x {0} classes",
            classes.len()
        );
        let mut counts = confusion.iter().flatten();
        let examples = counts.try_fold(0u64, |sum, &count| sum.checked_add(count));
        ensure!(
            examples.is_some_and(|examples| examples <= MAX_EXAMPLES),
            "expected a confusion matrix of at most {MAX_EXAMPLES} images"
        );
        let expected = Self::from_sums(&classes, confusion.clone(), 0.0)?;
        let expected = Self {
            loss: evaluation.loss,
            top5_accuracy: evaluation.top5_accuracy,
            calibration_error: evaluation.calibration_error,
            macro_average: expected
                .macro_average
                .filter(|_| evaluation.macro_average.is_some()),
            ..expected
        };
        let top5 = evaluation.top5_accuracy.unwrap_or(1.0);
        ensure!(
            (evaluation.accuracy..=1.0).contains(&top5),
            "expected a top-5 accuracy from the accuracy to 1"
        );
        ensure!(
            evaluation == expected,
            "the metrics do not follow from the confusion matrix"
        );
        Ok(evaluation)
    }

    /// Writes the evaluation to the folder of a run.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written to.
    pub(crate) fn write(&self, run: &RunDir) -> Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        run.write(&run.evaluation_path(), json.as_bytes())
    }

    /// Returns the means over the classes that have images.
    pub(crate) fn macro_average(&self) -> MacroAverage {
        MacroAverage::of(&self.classes)
    }

    /// Returns the mean recall of the classes that have images.
    pub(crate) fn balanced_accuracy(&self) -> f64 {
        self.macro_average().recall
    }

    /// Returns the loss and the accuracy.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics {
            loss: self.loss,
            accuracy: self.accuracy,
        }
    }
}

impl MacroAverage {
    fn of(classes: &[ClassMetrics]) -> Self {
        let present: Vec<&ClassMetrics> =
            classes.iter().filter(|class| class.support > 0).collect();
        let mean = |metric: fn(&ClassMetrics) -> f64| {
            present.iter().map(|class| metric(class)).sum::<f64>() / present.len().max(1) as f64
        };
        Self {
            precision: mean(|class| class.precision),
            recall: mean(|class| class.recall),
            f1: mean(|class| class.f1),
        }
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accuracy {:.2}%  loss {:.4}  ({} images)",
            100.0 * self.accuracy,
            self.loss,
            self.examples
        )?;
        let hits = (0..self.confusion.len()).map(|class| self.confusion[class][class]);
        let [low, high] = wilson_interval(hits.sum(), self.examples);
        writeln!(
            f,
            "95% confidence interval of the accuracy: {:.2}% to {:.2}%",
            100.0 * low,
            100.0 * high
        )?;
        if let Some(error) = &self.calibration_error {
            write!(f, "calibration error {:.2}%", 100.0 * error.original)?;
            match error.calibrated {
                Some(calibrated) => {
                    writeln!(f, ", {:.2}% after temperature scaling", 100.0 * calibrated)?
                }
                None => writeln!(f)?,
            }
        }
        write!(
            f,
            "balanced accuracy {:.2}%",
            100.0 * self.balanced_accuracy()
        )?;
        if let Some(top5) = self.top5_accuracy {
            write!(f, "  top-5 accuracy {:.2}%", 100.0 * top5)?;
        }
        writeln!(f, "\n")?;
        let mut table = Table::new(["class", "precision", "recall", "f1", "support"]);
        for row in &self.classes {
            table.row([
                row.class.clone(),
                format!("{:.4}", row.precision),
                format!("{:.4}", row.recall),
                format!("{:.4}", row.f1),
                row.support.to_string(),
            ]);
        }
        let MacroAverage {
            precision,
            recall,
            f1,
        } = self.macro_average();
        let means = [precision, recall, f1].map(|mean| format!("{mean:.4}"));
        let total = [self.examples.to_string()];
        table.row(
            ["macro average".to_string()]
                .into_iter()
                .chain(means)
                .chain(total),
        );
        writeln!(f, "{table}")?;

        writeln!(f, "\nconfusion matrix (row: class, column: predicted)")?;
        let indices = (0..self.classes.len()).map(|index| index.to_string());
        let mut table = Table::new([String::new()].into_iter().chain(indices));
        for (row, counts) in self.classes.iter().zip(&self.confusion) {
            let counts = counts.iter().map(u64::to_string);
            table.row([row.class.clone()].into_iter().chain(counts));
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_metrics_match_scikit_learn() {
        let classes = ["cat", "dog", "eel"].map(String::from);
        let metrics = class_metrics(&classes, &[vec![3, 1, 0], vec![2, 4, 0], vec![0, 0, 0]]);
        let row = |i: usize| {
            let ClassMetrics {
                precision,
                recall,
                f1,
                support,
                ..
            } = metrics[i];
            (precision, recall, f1, support)
        };
        assert_eq!(row(0), (0.6, 0.75, 6.0 / 9.0, 4));
        assert_eq!(row(1), (0.8, 4.0 / 6.0, 8.0 / 11.0, 6));
        assert_eq!(row(2), (0.0, 0.0, 0.0, 0));
    }

    #[test]
    fn classes_count_equally_in_means() {
        let classes = ["cat", "dog", "eel"].map(String::from);
        let evaluation = Evaluation::from_sums(
            &classes,
            vec![vec![18, 2, 0], vec![1, 1, 0], vec![0, 0, 0]],
            1.0,
        );
        let evaluation = evaluation.unwrap();
        assert!((evaluation.balanced_accuracy() - (0.9 + 0.5) / 2.0).abs() < 1e-12);
        let text = evaluation.to_string();
        assert!(text.contains("balanced accuracy 70.00%\n"), "{text}");
        assert!(text.contains("macro average"), "{text}");
    }

    #[test]
    fn an_evaluation_of_an_older_version_has_no_means() {
        let classes = ["cat", "dog"].map(String::from);
        let evaluation =
            Evaluation::from_sums(&classes, vec![vec![3, 1], vec![2, 4]], 5.0).unwrap();
        let json = serde_json::to_string(&Evaluation {
            macro_average: None,
            ..evaluation
        });
        let json = json.unwrap();
        assert!(!json.contains("macro_average"));
        assert!(Evaluation::from_json(json.as_bytes()).is_ok());
    }

    #[test]
    fn the_five_highest_scores_are_the_top_5() {
        let scores = [0.1, 0.9, 0.3, 0.3, 0.3, 0.3, 0.2];
        let top: Vec<usize> = (0..7).filter(|class| is_in_top5(&scores, *class)).collect();
        assert_eq!(top, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn rejects_a_file_whose_numbers_contradict_each_other() {
        let classes = ["cat", "dog"].map(String::from);
        let evaluation = Evaluation::from_sums(&classes, vec![vec![3, 1], vec![2, 4]], 5.0);
        let evaluation = evaluation.unwrap();
        let read = |text: &str| Evaluation::from_json(text.as_bytes()).map_err(|e| e.to_string());
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(read(&json), Ok(evaluation));
        let metrics = "the metrics do not follow from the confusion matrix";
        let square = "expected a confusion matrix of 2 x 2 classes";
        let images = "expected a confusion matrix of at most 9007199254740992 images";
        for (from, to, expected) in [
            ("\"accuracy\":0.7", "\"accuracy\":0.9", metrics),
            ("\"examples\":10", "\"examples\":11", metrics),
            ("\"recall\":0.75", "\"recall\":0.8", metrics),
            ("[3,1]", "[3,0]", metrics),
            ("[3,1]", "[3,1,0]", square),
            (",[2,4]", "", square),
            ("[3,1]", "[3,9007199254740992]", images),
            ("[3,1]", "[3,18446744073709551615]", images),
        ] {
            assert!(json.contains(from), "{json}");
            assert_eq!(read(&json.replace(from, to)), Err(expected.into()), "{to}");
        }
    }
}
