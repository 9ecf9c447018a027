//! What a batch teaches a network: its loss, and the gradients.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::train::ClassificationOutput;
use data::Batch;
use model::ConvNet;

use crate::config::TrainingConfig;
use crate::gradients::scale;
use crate::precision::Precision;

/// What is made small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Objective {
    label_smoothing: f64,
    precision: Precision,
}

impl Objective {
    pub(crate) fn of(settings: &TrainingConfig) -> Self {
        Self {
            label_smoothing: settings.label_smoothing,
            precision: settings.precision,
        }
    }

    /// What a batch comes to, and the gradients of `weight` times its mean loss.
    pub(crate) fn learn(
        &self,
        model: &ConvNet,
        batch: Batch,
        weight: f64,
    ) -> (ClassificationOutput, GradientsParams) {
        let images = batch.images.cast(self.precision.dtype());
        let output = model.forward_classification(Batch { images, ..batch }, self.label_smoothing);
        let loss_scale = self.precision.loss_scale();
        let loss = match weight * loss_scale {
            1.0 => output.loss.clone(),
            factor => output.loss.clone().mul_scalar(factor),
        };
        let device = loss.device().inner();
        let gradients = GradientsParams::from_grads(loss.backward(), model);
        let gradients = match loss_scale {
            1.0 => gradients,
            loss_scale => {
                let factor = Tensor::full([1], loss_scale.recip(), &device);
                scale(gradients, model, factor)
            }
        };
        (output, gradients)
    }
}
