//! Loss and accuracy of an epoch while it is trained.

use burn::tensor::{Int, Tensor};
use burn::train::ClassificationOutput;

use crate::run::metrics::EpochSums;

/// Losses and correct predictions of the batches of an epoch.
///
/// Each read makes the host wait for the device, so the values of several batches stay on the device
/// and are read together.
#[derive(Debug, Default)]
pub(crate) struct RunningMetrics {
    sums: EpochSums,
    unread: Vec<BatchMetrics>,
    /// Mean loss of the first batch that was read.
    first_loss: Option<f32>,
}

/// Mean loss and number of correct predictions of one batch, `[1]` each, on the device.
#[derive(Debug)]
struct BatchMetrics {
    loss: Tensor<1>,
    correct: Tensor<1, Int>,
    images: u64,
}

/// A loss that is not a finite number.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the loss is {loss}")]
pub(crate) struct NotFinite {
    loss: f32,
    /// Number of batches added after it.
    pub(crate) batches_ago: usize,
}

impl RunningMetrics {
    /// Continues from the sums over earlier batches of the epoch.
    pub(crate) fn resume(sums: EpochSums) -> Self {
        Self {
            sums,
            ..Self::default()
        }
    }

    /// Adds a batch.
    pub(crate) fn add(&mut self, output: &ClassificationOutput) {
        let logits = output.output.clone().without_autodiff();
        let targets = output.targets.clone().without_autodiff();
        self.unread.push(BatchMetrics {
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

    /// Reads the batches added since the last call from the device and returns the sums.
    ///
    /// # Errors
    /// Returns an error for the first batch whose loss is not finite.
    pub(crate) fn read(&mut self) -> Result<EpochSums, NotFinite> {
        let batches = std::mem::take(&mut self.unread);
        let images: Vec<u64> = batches.iter().map(|batch| batch.images).collect();
        if images.is_empty() {
            return Ok(self.sums);
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
            self.first_loss.get_or_insert(loss);
            self.sums.add(loss, correct as u64, images);
        }
        Ok(self.sums)
    }

    /// Returns the mean loss of the first batch that was read.
    pub(crate) fn first_loss(&self) -> Option<f32> {
        self.first_loss
    }

    /// Returns the mean loss of the batches read since the last call.
    pub(crate) fn take_running_loss(&mut self) -> f64 {
        self.sums.take_running_loss()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::run::metrics::Metrics;

    fn output(loss: f32, logits: [[f32; 2]; 2], targets: [i32; 2]) -> ClassificationOutput {
        let device = Device::default();
        ClassificationOutput::new(
            Tensor::from_floats([loss], &device),
            Tensor::from_floats(logits, &device),
            Tensor::from_ints(targets, &device),
        )
    }

    #[test]
    fn averages_since_the_last_report_and_over_the_epoch() {
        let mut metrics = RunningMetrics::default();
        metrics.add(&output(1.0, [[0.1, 0.9], [0.8, 0.2]], [1, 0]));
        metrics.add(&output(2.0, [[0.1, 0.9], [0.8, 0.2]], [0, 0]));
        metrics.read().unwrap();
        assert_eq!(metrics.take_running_loss(), 1.5);
        metrics.add(&output(6.0, [[0.1, 0.9], [0.8, 0.2]], [0, 1]));
        let mut metrics = RunningMetrics::resume(metrics.read().unwrap());
        assert_eq!(metrics.first_loss(), None);
        metrics.add(&output(3.0, [[0.1, 0.9], [0.8, 0.2]], [0, 1]));
        let Metrics { loss, accuracy } = metrics.read().unwrap().metrics();
        assert_eq!((loss, accuracy), (3.0, 0.375));
        assert_eq!(metrics.first_loss(), Some(3.0));
        assert_eq!(metrics.take_running_loss(), 4.5);
    }

    #[test]
    fn reports_the_first_loss_that_is_not_finite() {
        let mut metrics = RunningMetrics::default();
        for loss in [1.0, 2.0, f32::INFINITY, f32::NAN, 1.0] {
            metrics.add(&output(loss, [[0.1, 0.9], [0.8, 0.2]], [1, 0]));
        }
        let error = metrics.read().unwrap_err();
        assert_eq!(error.to_string(), "the loss is inf");
        assert_eq!(error.batches_ago, 2);
    }
}
