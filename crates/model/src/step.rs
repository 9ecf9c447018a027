//! One step of learning, and one of judging, as burn-train's learner calls them.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use data::Batch;

use crate::conv_net::ConvNet;

impl ConvNet {
    /// Logits and their mean cross-entropy against the targets.
    pub fn forward_classification(&self, batch: Batch) -> ClassificationOutput {
        let Batch { images, targets } = batch;
        let logits = self.forward(images);
        let loss = cross_entropy(logits.clone(), targets.clone());
        ClassificationOutput::new(loss, logits, targets)
    }
}

/// Mean over the batch of `-log softmax(logits)[target]`, `[1]`.
fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    CrossEntropyLossConfig::new()
        .init(&logits.device())
        .forward(logits, targets)
}

impl TrainStep for ConvNet {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.forward_classification(batch);
        let gradients = output.loss.backward();
        TrainOutput::new(self, gradients, output)
    }
}

impl InferenceStep for ConvNet {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.forward_classification(batch)
    }
}
