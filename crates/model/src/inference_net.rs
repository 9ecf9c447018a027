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
        let features = self.network.run_blocks(images, |place, block, images| {
            let filters = match place {
                Place::Block(index) => &self.blocks[index],
                Place::Projection(index) => &self.projections[index],
            };
            block.run(images, Some(filters))
        });
        self.network.classify(features)
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
