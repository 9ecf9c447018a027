//! One training step and one evaluation step, as burn-train's traits.
//!
//! The training loop calls [`TrainStep::step`] for every batch, evaluation calls [`InferenceStep::step`].
//! burn-train's `Learner` and `SupervisedTraining` accept only models that implement both.

use std::sync::Arc;

use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use data::Batch;

use crate::conv_net::ConvNet;
use crate::gradients;
use crate::loss::{cross_entropy, mixed_cross_entropy, weighted_cross_entropy};
use crate::precision::Precision;

/// The training objective: cross-entropy with label smoothing and weights of classes, computed in a number format.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Label smoothing factor, see [`cross_entropy`].
    pub label_smoothing: f64,
    /// Factor of the loss of each class; `None` for 1.
    pub class_weights: Option<Arc<[f32]>>,
    /// Number format of feature maps and matrix products.
    pub precision: Precision,
}

/// Input of a training step.
#[derive(Clone, Debug)]
pub struct TrainingBatch {
    /// Normalized images and their targets.
    pub batch: Batch,
    /// The training objective.
    pub objective: Objective,
    /// Factor of the batch's mean loss in the gradients: below 1 for a part of a larger batch.
    pub weight: f64,
}

impl ConvNet {
    /// Computes the logits and their mean cross-entropy. The targets of the output are the classes with the
    /// larger weight, so the training accuracy counts these.
    fn forward_classification(
        &self,
        batch: Batch,
        label_smoothing: f64,
        class_weights: Option<&[f32]>,
    ) -> ClassificationOutput {
        let Batch {
            images,
            targets,
            mixed,
        } = batch;
        let logits = self.forward(images);
        let loss = |logits: Tensor<2>, targets: Tensor<1, Int>| match class_weights {
            None => cross_entropy(logits, targets, label_smoothing),
            Some(weights) => {
                let weights = Tensor::from_floats(weights, &logits.device());
                weighted_cross_entropy(logits, targets, label_smoothing, weights)
            }
        };
        let loss = {
            let (logits, targets) = (logits.clone(), targets.clone());
            match mixed {
                None => loss(logits, targets),
                Some(others) => mixed_cross_entropy(logits, targets, others, loss),
            }
        };
        ClassificationOutput::new(loss, logits, targets)
    }
}

impl TrainStep for ConvNet {
    type Input = TrainingBatch;
    type Output = ClassificationOutput;

    /// Computes the unweighted mean loss of a batch, and the gradients of `weight` times that loss.
    fn step(&self, input: TrainingBatch) -> TrainOutput<ClassificationOutput> {
        let TrainingBatch {
            batch,
            objective,
            weight,
        } = input;
        let images = batch.images.cast(objective.precision.dtype());
        let item = self.forward_classification(
            Batch { images, ..batch },
            objective.label_smoothing,
            objective.class_weights.as_deref(),
        );
        let loss_scale = objective.precision.loss_scale();
        let loss = match weight * loss_scale {
            1.0 => item.loss.clone(),
            factor => item.loss.clone().mul_scalar(factor),
        };
        let device = loss.device().inner();
        let grads = GradientsParams::from_grads(loss.backward(), self);
        let grads = match loss_scale {
            1.0 => grads,
            loss_scale => {
                let factor = Tensor::full([1], loss_scale.recip(), &device);
                gradients::scale(grads, self, factor)
            }
        };
        TrainOutput { grads, item }
    }
}

impl InferenceStep for ConvNet {
    type Input = Batch;
    type Output = ClassificationOutput;

    /// Computes the logits and the mean loss of a batch, without label smoothing.
    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.forward_classification(batch, 0.0, None)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Int};

    use super::*;
    use crate::block::{BlockConfig, Pool, Stage};
    use crate::config::ConvNetConfig;

    fn small(device: &Device) -> ConvNet {
        device.seed(1);
        let block = |pool| {
            Stage::Block(BlockConfig {
                channels: 4,
                pool,
                ..BlockConfig::default()
            })
        };
        let config = ConvNetConfig {
            input: [9, 8],
            classes: 3,
            dense: vec![5],
            blocks: vec![block(Pool::MAX), block(Pool::None)],
            ..ConvNetConfig::default()
        };
        config.init(device).unwrap()
    }

    /// Uniform noise whose brightness grows with the class.
    fn batch(device: &Device) -> TrainingBatch {
        let targets = Tensor::<1, Int>::from_ints([0, 1, 2, 0, 1, 2], device);
        let noise = Tensor::random([6, 1, 9, 8], Distribution::Uniform(0.0, 0.5), device);
        let images = noise + targets.clone().float().reshape([6, 1, 1, 1]);
        TrainingBatch {
            batch: Batch {
                images,
                targets,
                mixed: None,
            },
            objective: Objective {
                label_smoothing: 0.0,
                class_weights: None,
                precision: Precision::F32,
            },
            weight: 1.0,
        }
    }

    #[test]
    fn weight_scales_the_gradients_but_not_the_loss() {
        let device = Device::default().autodiff();
        let model = small(&device);
        let whole = batch(&device);
        let half = TrainingBatch {
            weight: 0.5,
            ..whole.clone()
        };
        let [whole, half] = [whole, half].map(|batch| {
            let output = TrainStep::step(&model, batch);
            let gradients = gradients::flatten(output.grads, &model).into_data();
            let loss: f32 = output.item.loss.into_scalar();
            (loss, gradients.try_to_vec::<f32>().unwrap())
        });
        assert_eq!(half.0, whole.0);
        let halved: Vec<f32> = whole.1.iter().map(|gradient| 0.5 * gradient).collect();
        assert_eq!(half.1, halved);
    }
}
