//! The results of an epoch.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::run::metrics::Metrics;

/// The results of an epoch. The training metrics are means over the batches during training, with dropout and
/// label smoothing; validation and test metrics are those of the weights after the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// The number of the epoch, from 1.
    pub(crate) number: usize,
    /// Number of epochs in the settings.
    pub(crate) of: usize,
    /// Number of optimizer steps up to the end of the epoch.
    pub(crate) steps: u64,
    pub(crate) train: Metrics,
    pub(crate) validation: Option<Metrics>,
    /// The metric that the best epoch is chosen by, the higher the better; `None` for the accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) score: Option<f64>,
    /// With `report_test` only. Never used for a choice.
    pub(crate) test: Option<Metrics>,
    /// The learning rate of the last step.
    pub(crate) learning_rate: f64,
    /// Training images per second, without evaluation.
    pub(crate) images_per_second: f64,
    /// Fraction of the training time spent on preparing batches.
    pub(crate) loading: f64,
    /// Seconds from the start of the training to the end of the epoch.
    pub(crate) seconds: f64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}/{}", self.number, self.of)?;
        let splits = [
            ("train", Some(self.train)),
            ("validation", self.validation),
            ("test", self.test),
        ];
        for (split, metrics) in splits {
            if let Some(Metrics { loss, accuracy }) = metrics {
                write!(
                    f,
                    "  {split} loss {loss:.4} accuracy {:.2}%",
                    100.0 * accuracy
                )?;
            }
        }
        write!(
            f,
            "  {:.0} images/s, {:.1}% loading",
            self.images_per_second,
            100.0 * self.loading
        )
    }
}

/// Returns the best epoch, the first one of equals: by the metric that was chosen, else the validation accuracy, then by
/// validation loss. Without validation, returns the last epoch.
pub(crate) fn best_epoch(epochs: &[Epoch]) -> Option<&Epoch> {
    epochs.iter().reduce(
        |best, epoch| {
            if is_better(epoch, best) { epoch } else { best }
        },
    )
}

fn is_better(epoch: &Epoch, best: &Epoch) -> bool {
    let rank = |epoch: &Epoch| {
        let Metrics { loss, accuracy } = epoch.validation?;
        Some((epoch.score.unwrap_or(accuracy), -loss))
    };
    match (rank(epoch), rank(best)) {
        (Some(new), Some(old)) => new > old,
        _ => true,
    }
}

/// Formats epochs as `metrics.csv`. Missing metrics are empty fields. Without durations, so that equal
/// trainings write equal files.
pub(crate) fn to_csv(epochs: &[Epoch]) -> String {
    let mut csv = String::from(
        "epoch,steps,train_loss,train_accuracy,validation_loss,validation_accuracy,\
         test_loss,test_accuracy,learning_rate\n",
    );
    for epoch in epochs {
        let _ = write!(csv, "{},{}", epoch.number, epoch.steps);
        for metrics in [Some(epoch.train), epoch.validation, epoch.test] {
            let _ = match metrics {
                Some(Metrics { loss, accuracy }) => write!(csv, ",{loss:.6},{accuracy:.6}"),
                None => write!(csv, ",,"),
            };
        }
        let _ = writeln!(csv, ",{}", epoch.learning_rate);
    }
    csv
}
