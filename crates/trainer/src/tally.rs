//! Loss and accuracy over many batches.

use anyhow::{Result, ensure};
use burn::tensor::{Int, Tensor};
use burn::train::ClassificationOutput;

/// Mean loss and accuracy of some images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Mean cross-entropy.
    pub(crate) loss: f64,
    /// Fraction classified correctly.
    pub(crate) accuracy: f64,
}

/// Sums of losses and hits. Batches are added up on their device and read back together, since
/// each read makes the host wait for the device.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    loss_sum: f64,
    correct: u64,
    images: u64,
    unread: Option<Unread>,
}

/// Sums on the device.
#[derive(Debug)]
struct Unread {
    loss_sum: Tensor<1>,
    correct: Tensor<1, Int>,
    images: u64,
}

impl Tally {
    /// Adds the batch that `output` belongs to.
    pub(crate) fn add(&mut self, output: &ClassificationOutput) {
        let logits = output.output.clone().without_autodiff();
        let targets = output.targets.clone().without_autodiff();
        let images = logits.dims()[0] as u64;
        let loss_sum = output
            .loss
            .clone()
            .without_autodiff()
            .mul_scalar(images as f64);
        let correct = logits
            .argmax(1)
            .flatten::<1>(0, 1)
            .equal(targets)
            .int()
            .sum();
        self.unread = Some(match self.unread.take() {
            None => Unread {
                loss_sum,
                correct,
                images,
            },
            Some(sums) => Unread {
                loss_sum: sums.loss_sum + loss_sum,
                correct: sums.correct + correct,
                images: sums.images + images,
            },
        });
    }

    /// Reads the batches added since the last call, and gives their figures; `None` if there are
    /// none.
    ///
    /// # Errors
    /// When the loss is not a finite number.
    pub(crate) fn read(&mut self) -> Result<Option<Figures>> {
        let Some(unread) = self.unread.take() else {
            return Ok(None);
        };
        let loss_sum = f64::from(unread.loss_sum.into_scalar::<f32>());
        let correct = unread.correct.into_scalar::<i64>() as u64;
        ensure!(loss_sum.is_finite(), "the loss is {loss_sum}");
        self.loss_sum += loss_sum;
        self.correct += correct;
        self.images += unread.images;
        Ok(Some(figures(loss_sum, correct, unread.images)))
    }

    /// The figures of all batches.
    ///
    /// # Errors
    /// When the loss is not a finite number.
    pub(crate) fn total(mut self) -> Result<Figures> {
        self.read()?;
        Ok(figures(self.loss_sum, self.correct, self.images))
    }
}

fn figures(loss_sum: f64, correct: u64, images: u64) -> Figures {
    Figures {
        loss: loss_sum / images as f64,
        accuracy: correct as f64 / images as f64,
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
    fn batches_are_averaged_since_the_last_read_and_in_total() {
        let mut tally = Tally::default();
        tally.add(&output(1.0, [[0.1, 0.9], [0.8, 0.2]], [1, 0]));
        tally.add(&output(2.0, [[0.1, 0.9], [0.8, 0.2]], [0, 0]));
        let since = tally.read().unwrap().unwrap();
        assert_eq!((since.loss, since.accuracy), (1.5, 0.75));
        assert_eq!(tally.read().unwrap(), None);
        tally.add(&output(6.0, [[0.1, 0.9], [0.8, 0.2]], [0, 1]));
        let total = tally.total().unwrap();
        assert_eq!((total.loss, total.accuracy), (3.0, 0.5));
    }

    #[test]
    fn a_loss_that_is_no_number_is_an_error() {
        let mut tally = Tally::default();
        tally.add(&output(f32::NAN, [[0.1, 0.9], [0.8, 0.2]], [1, 0]));
        assert_eq!(tally.read().unwrap_err().to_string(), "the loss is NaN");
    }
}
