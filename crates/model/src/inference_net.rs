//! A network for inference.

use std::ops::Deref;

use burn::tensor::Tensor;
use kernels::PackedFilters;

use crate::conv_net::{ConvNet, Place};

/// A network whose parameters do not change anymore. On CPUs, its filters are packed once instead of in every call.
#[derive(Clone, Debug)]
pub struct InferenceNet {
    network: ConvNet,
    /// The filters of each block, and of the projection of each shortcut.
    blocks: Vec<PackedFilters>,
    projections: Vec<PackedFilters>,
}

impl InferenceNet {
    /// Computes the logits of normalized images, as [`ConvNet::forward`] does.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.network.classify(self.last_maps(images))
    }

    /// Computes the logits `[N, classes]`, and the features `[N, channels * H * W]` that they follow from: the flattened
    /// feature maps of the last block, in the number format of the images.
    pub fn forward_with_features(&self, images: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let features = self.last_maps(images);
        (
            self.network.classify(features.clone()),
            features.flatten(1, 3),
        )
    }

    /// Computes the logits `[N, classes]`, and the inputs of the output layer `[N, inputs]`, in the number format of the images:
    /// the activations of the last hidden dense layer, or the flattened feature maps of the last block in a network without.
    pub fn forward_with_last_hidden(&self, images: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let hidden = self.network.run_hidden(self.last_maps(images));
        (self.network.logits(hidden.clone()), hidden)
    }

    /// Computes the feature maps of the last block.
    fn last_maps(&self, images: Tensor<4>) -> Tensor<4> {
        self.network.run_blocks(images, |place, block, images| {
            let filters = match place {
                Place::Block(index) => &self.blocks[index],
                Place::Projection(index) => &self.projections[index],
            };
            block.run(images, Some(filters))
        })
    }
}

impl From<ConvNet> for InferenceNet {
    fn from(network: ConvNet) -> Self {
        let filters = |count| (0..count).map(|_| PackedFilters::default()).collect();
        Self {
            blocks: filters(network.blocks.len()),
            projections: filters(network.shortcuts.len()),
            network,
        }
    }
}

impl Deref for InferenceNet {
    type Target = ConvNet;

    fn deref(&self) -> &ConvNet {
        &self.network
    }
}
