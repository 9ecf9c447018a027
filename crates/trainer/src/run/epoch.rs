//! What each epoch of a run reached.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::run::metrics::Metrics;

/// One epoch. Training metrics are those of the batches as they were learned from, dropout and
/// label smoothing included; the others are of the weights at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// How many there will be.
    pub(crate) of: usize,
    /// Optimizer steps up to its end.
    pub(crate) steps: u64,
    pub(crate) train: Metrics,
    pub(crate) validation: Option<Metrics>,
    /// Reported where asked for, never chosen on.
    pub(crate) test: Option<Metrics>,
    /// Of its last step.
    pub(crate) learning_rate: f64,
    /// Training images per second, evaluation left out.
    pub(crate) images_per_second: f64,
    /// Fraction of the training time in which batches were prepared.
    pub(crate) loading: f64,
    /// Seconds from the start of the training to its end.
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

/// The best of these epochs, and of equal ones the first.
pub(crate) fn best_epoch(epochs: &[Epoch]) -> Option<&Epoch> {
    epochs.iter().reduce(|best, epoch| {
        if is_better(epoch.validation, best.validation) {
            epoch
        } else {
            best
        }
    })
}

/// By validation accuracy, then validation loss; without validation, later is better.
fn is_better(validation: Option<Metrics>, best: Option<Metrics>) -> bool {
    match (validation, best) {
        (Some(new), Some(old)) => (new.accuracy, -new.loss) > (old.accuracy, -old.loss),
        _ => true,
    }
}

/// The rows of `metrics.csv`, under their header. A figure that was not taken is left empty. There
/// are no times among them: the same training makes the same file.
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
