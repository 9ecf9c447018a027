//! One step of learning, and one of judging, as burn-train's learner calls them.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Int, Tensor};
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use data::Batch;

use crate::conv_net::ConvNet;

impl ConvNet {
    /// Logits and their mean cross-entropy against the targets, of whose probability
    /// `label_smoothing` is spread over all classes; Szegedy et al. (2016). Judging takes 0.
    pub fn forward_classification(
        &self,
        batch: Batch,
        label_smoothing: f64,
    ) -> ClassificationOutput {
        let Batch { images, targets } = batch;
        let logits = self.forward(images);
        let loss = cross_entropy(logits.clone(), targets.clone(), label_smoothing);
        ClassificationOutput::new(loss, logits, targets)
    }
}

/// Mean over the batch of `-log softmax(logits)[target]`, `[1]`.
fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>, label_smoothing: f64) -> Tensor<1> {
    CrossEntropyLossConfig::new()
        // Without smoothing, Burn picks the targets' logits instead of multiplying by all.
        .with_smoothing((label_smoothing > 0.0).then_some(label_smoothing as f32))
        .init(&logits.device())
        .forward(logits, targets)
}

impl TrainStep for ConvNet {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.forward_classification(batch, 0.0);
        let gradients = output.loss.backward();
        TrainOutput::new(self, gradients, output)
    }
}

impl InferenceStep for ConvNet {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.forward_classification(batch, 0.0)
    }
}
