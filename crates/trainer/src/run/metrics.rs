//! Loss and accuracy.

use serde::{Deserialize, Serialize};

use crate::process::table::Table;

/// Mean loss and accuracy over some images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metrics {
    /// Mean cross-entropy.
    pub(crate) loss: f64,
    /// Fraction of the images classified correctly.
    pub(crate) accuracy: f64,
}

/// Formats the metrics of each split as a table; splits without metrics are left out.
pub(crate) fn table(splits: &[(&str, Option<Metrics>)]) -> String {
    // Aligns the lines that follow the table, which start with `best epoch`.
    let mut table = Table::new([" ".repeat(10).as_str(), "loss", "accuracy"]);
    for (split, metrics) in splits {
        if let Some(Metrics { loss, accuracy }) = metrics {
            let percent = 100.0 * accuracy;
            table.row([
                (*split).to_string(),
                format!("{loss:.4}"),
                format!("{percent:.2}%"),
            ]);
        }
    }
    format!("{table}\n")
}

/// Sums over the batches of an epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochSums {
    /// Over all batches of the epoch.
    epoch: Sums,
    /// Over the batches since the last running loss.
    running: Sums,
}

/// Sums over some batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    /// Sum of the images' losses.
    loss: f64,
    /// Number of images classified correctly.
    correct: u64,
    images: u64,
}

impl EpochSums {
    /// Adds a batch of `images` images with this mean loss, `correct` of them classified correctly.
    pub(crate) fn add(&mut self, mean_loss: f32, correct: u64, images: u64) {
        for sums in [&mut self.epoch, &mut self.running] {
            sums.loss += f64::from(mean_loss) * images as f64;
            sums.correct = sums.correct.saturating_add(correct);
            sums.images = sums.images.saturating_add(images);
        }
    }

    /// Returns the metrics of the epoch so far.
    pub(crate) fn metrics(&self) -> Metrics {
        self.epoch.metrics()
    }

    /// Returns the number of images of the epoch so far.
    pub(crate) fn images(&self) -> u64 {
        self.epoch.images
    }

    /// Returns the mean loss of the batches added since the last call.
    pub(crate) fn take_running_loss(&mut self) -> f64 {
        std::mem::take(&mut self.running).metrics().loss
    }
}

impl Sums {
    fn metrics(&self) -> Metrics {
        Metrics {
            loss: self.loss / self.images as f64,
            accuracy: self.correct as f64 / self.images as f64,
        }
    }
}
