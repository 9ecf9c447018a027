//! Loss and accuracy over many batches.

use std::fmt::Write as _;

use burn::tensor::{Int, Tensor};
use burn::train::ClassificationOutput;
use serde::{Deserialize, Serialize};

/// Mean loss and accuracy of some images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Mean cross-entropy.
    pub(crate) loss: f64,
    /// Fraction classified correctly.
    pub(crate) accuracy: f64,
}

/// What was reached on which split, as results show it.
pub(crate) fn table(splits: &[(&str, Option<Figures>)]) -> String {
    let mut text = format!("{:10}    loss  accuracy\n", "");
    for (split, figures) in splits {
        if let Some(Figures { loss, accuracy }) = figures {
            let percent = 100.0 * accuracy;
            let _ = writeln!(text, "{split:10}  {loss:.4}    {percent:.2}%");
        }
    }
    text
}

/// Losses and hits of the batches of an epoch. Those of the last ones stay on their device and are
/// read back together, since each read makes the host wait for the device.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counted: Counted,
    unread: Vec<Batch>,
}

/// The batches that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// All of the epoch.
    epoch: Sums,
    /// Those since the running figures were taken.
    running: Sums,
}

/// Sums over batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    loss: f64,
    correct: u64,
    images: u64,
}

/// Mean loss and hits of one batch, `[1]` each, on the device.
#[derive(Debug)]
struct Batch {
    loss: Tensor<1>,
    correct: Tensor<1, Int>,
    images: u64,
}

/// A loss that is no finite number.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the loss is {loss}")]
pub(crate) struct NotFinite {
    loss: f32,
    /// How many batches were added after it.
    pub(crate) batches_ago: usize,
}

impl Tally {
    /// Goes on after batches that were counted before.
    pub(crate) fn resume(counted: Counted) -> Self {
        Self {
            counted,
            unread: Vec::new(),
        }
    }

    /// Adds the batch that `output` belongs to.
    pub(crate) fn add(&mut self, output: &ClassificationOutput) {
        let logits = output.output.clone().without_autodiff();
        let targets = output.targets.clone().without_autodiff();
        self.unread.push(Batch {
            images: logits.dims()[0] as u64,
            loss: output.loss.clone().without_autodiff(),
            correct: logits
                .argmax(1)
                .flatten::<1>(0, 1)
                .equal(targets)
                .int()
                .sum(),
        });
    }

    /// Counts the batches that were added.
    ///
    /// # Errors
    /// For the first of them whose loss is not a finite number.
    pub(crate) fn read(&mut self) -> Result<Counted, NotFinite> {
        let batches = std::mem::take(&mut self.unread);
        let images: Vec<u64> = batches.iter().map(|batch| batch.images).collect();
        if images.is_empty() {
            return Ok(self.counted);
        }
        let (losses, correct) = batches
            .into_iter()
            .map(|batch| (batch.loss, batch.correct))
            .unzip();
        let losses = Tensor::cat(losses, 0).into_data();
        let correct = Tensor::cat(correct, 0).into_data();
        let read = losses.iter::<f32>().zip(correct.iter::<i64>());
        for (at, ((loss, correct), &images)) in read.zip(&images).enumerate() {
            if !loss.is_finite() {
                let batches_ago = losses.num_elements() - 1 - at;
                return Err(NotFinite { loss, batches_ago });
            }
            for sums in [&mut self.counted.epoch, &mut self.counted.running] {
                sums.loss += f64::from(loss) * images as f64;
                sums.correct = sums.correct.saturating_add(correct as u64);
                sums.images = sums.images.saturating_add(images);
            }
        }
        Ok(self.counted)
    }

    /// The mean loss of the batches counted since the last call.
    pub(crate) fn running_loss(&mut self) -> f64 {
        std::mem::take(&mut self.counted.running).figures().loss
    }
}

impl Counted {
    /// The figures of the epoch so far.
    pub(crate) fn figures(&self) -> Figures {
        self.epoch.figures()
    }
}

impl Sums {
    fn figures(&self) -> Figures {
        Figures {
            loss: self.loss / self.images as f64,
            accuracy: self.correct as f64 / self.images as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn output(loss: f32, logits: [[f32; 2]; 2], targets: [i32; 2]) -> ClassificationOutput {
        let device = Device::default();
        ClassificationOutput::new(
            Tensor::from_floats([loss], &device),
            Tensor::from_floats(logits, &device),
            Tensor::from_ints(targets, &device),
        )
    }

    #[test]
    fn batches_are_averaged_since_the_last_report_and_in_total() {
        let mut tally = Tally::default();
        tally.add(&output(1.0, [[0.1, 0.9], [0.8, 0.2]], [1, 0]));
        tally.add(&output(2.0, [[0.1, 0.9], [0.8, 0.2]], [0, 0]));
        tally.read().unwrap();
        assert_eq!(tally.running_loss(), 1.5);
        tally.add(&output(6.0, [[0.1, 0.9], [0.8, 0.2]], [0, 1]));
        let mut tally = Tally::resume(tally.read().unwrap());
        tally.add(&output(3.0, [[0.1, 0.9], [0.8, 0.2]], [0, 1]));
        let Figures { loss, accuracy } = tally.read().unwrap().figures();
        assert_eq!((loss, accuracy), (3.0, 0.375));
        assert_eq!(tally.running_loss(), 4.5);
    }

    #[test]
    fn a_loss_that_is_no_number_is_found_where_it_was_first() {
        let mut tally = Tally::default();
        for loss in [1.0, 2.0, f32::INFINITY, f32::NAN, 1.0] {
            tally.add(&output(loss, [[0.1, 0.9], [0.8, 0.2]], [1, 0]));
        }
        let error = tally.read().unwrap_err();
        assert_eq!(error.to_string(), "the loss is inf");
        assert_eq!(error.batches_ago, 2);
    }
}
