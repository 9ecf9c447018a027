//! Class probabilities of one image.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use crate::error::Error;

/// The probability of each class for one image, in the order of the classes. They sum up to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Probabilities(Vec<f32>);

impl Probabilities {
    /// Computes the softmax of logits `[N, classes]`, and reads it from the device.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub fn from_logits(logits: Tensor<2>) -> Result<Vec<Self>, Error> {
        let [_, classes] = logits.dims();
        let values: Vec<f32> = softmax(logits, 1)
            .into_data()
            .try_to_vec()
            .map_err(|error| Error::Device(format!("{error:?}")))?;
        let rows = values.chunks(classes);
        Ok(rows.map(|row| Self(row.to_vec())).collect())
    }

    /// Returns the mean of several predictions of the same images.
    ///
    /// # Errors
    /// Returns the first error of `predictions`.
    pub fn mean<E>(
        predictions: impl Iterator<Item = Result<Vec<Self>, E>>,
    ) -> Result<Vec<Self>, E> {
        let (mut sums, mut count) = (Vec::<Self>::new(), 0.0);
        for prediction in predictions {
            let prediction = prediction?;
            count += 1.0;
            if sums.is_empty() {
                sums = prediction;
                continue;
            }
            for (Self(sum), Self(row)) in sums.iter_mut().zip(prediction) {
                sum.iter_mut().zip(row).for_each(|(sum, p)| *sum += p);
            }
        }
        for Self(sum) in &mut sums {
            sum.iter_mut().for_each(|p| *p /= count);
        }
        Ok(sums)
    }

    /// Returns the probabilities, in the order of the classes.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Returns the indices of the classes and their probabilities, in descending order.
    pub fn ranked(&self) -> Vec<(usize, f32)> {
        let mut ranked: Vec<(usize, f32)> = self.0.iter().copied().enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
    }

    /// Returns the index of the most likely class and its probability; the first one of equals, as argmax.
    pub fn best(&self) -> (usize, f32) {
        let pairs = self.0.iter().copied().enumerate();
        pairs
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .unwrap_or_default()
    }

    /// Returns the highest probability after the logits are divided by `temperature`.
    pub fn calibrated(&self, temperature: f32) -> f32 {
        self.logarithm(self.best().0, temperature).exp()
    }

    /// Returns the logarithm of the probability of a class after the logits are divided by `temperature`.
    pub(crate) fn logarithm(&self, class: usize, temperature: f32) -> f32 {
        // Logits are logarithms of probabilities, up to a constant. The smallest ones were rounded to zero.
        let logit = |p: f32| p.max(f32::MIN_POSITIVE).ln() / temperature;
        let sum: f32 = self.0.iter().map(|&p| logit(p).exp()).sum();
        logit(self.0[class]) - sum.ln()
    }

    /// Returns the cross-entropy for an image of class `label`.
    ///
    /// # Panics
    /// Panics if `label` is not below the number of classes.
    pub fn loss(&self, label: usize) -> f32 {
        -self.0[label].max(f32::MIN_POSITIVE).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_weights_all_predictions_equally() {
        let prediction = |p: f32| Ok(vec![Probabilities(vec![p, 1.0 - p]); 2]);
        let mean =
            Probabilities::mean([prediction(1.0), prediction(0.5), prediction(0.0)].into_iter());
        let half = Probabilities(vec![0.5, 0.5]);
        assert_eq!(mean, Ok::<_, &str>(vec![half.clone(), half]));
        let failed = Err("no device");
        let mean = Probabilities::mean([prediction(1.0), failed].into_iter());
        assert_eq!(mean, Err("no device"));
    }

    #[cfg(any(feature = "flex", feature = "ndarray"))]
    #[test]
    fn best_is_the_first_of_equals() {
        use burn::tensor::Device;

        let logits = Tensor::from_floats([[0.0, 2.0, 2.0], [5.0, 0.0, 1.0]], &Device::default());
        let probabilities = Probabilities::from_logits(logits).unwrap();
        assert_eq!(probabilities[0].best().0, 1);
        let ranked: Vec<usize> = probabilities[1]
            .ranked()
            .iter()
            .map(|&(class, _)| class)
            .collect();
        assert_eq!(ranked, [0, 2, 1]);
        let sum: f32 = probabilities[1].as_slice().iter().sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert!((probabilities[1].loss(0) - 0.0248).abs() < 1e-3);
    }
}
