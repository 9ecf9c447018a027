//! The description of a network, as saved with each run.

use kernels::Activation;
use serde::{Deserialize, Serialize};

use crate::block::{BlockConfig, Initialization, Stage};
use crate::raw_block;

/// Description of a classifier for small images: convolution blocks, hidden dense layers, and one logit per
/// class.
///
/// Without blocks it describes a multilayer perceptron.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConvNetConfig {
    /// Color channels of the images: 1 for grayscale, 3 for RGB.
    pub channels: usize,
    /// Size of the images in pixels, `[height, width]`.
    pub input: [usize; 2],
    /// Number of classes.
    pub classes: usize,
    /// Number of outputs of each hidden dense layer.
    pub dense: Vec<usize>,
    /// Activation of the hidden dense layers.
    pub dense_activation: Activation,
    /// Dropout probability before the last layer; 0 disables dropout.
    pub dropout: f64,
    /// Whether the last layer has a bias.
    pub output_bias: bool,
    /// Constant factor of the logits.
    pub logit_scale: f64,
    /// Weight initialization.
    pub initialization: Initialization,
    /// Convolution blocks and residual groups, in order.
    #[serde(
        serialize_with = "raw_block::serialize",
        deserialize_with = "raw_block::deserialize"
    )]
    pub blocks: Vec<Stage>,
}

impl Default for ConvNetConfig {
    /// Returns conv32-pool-conv64-pool-fc128-fc10 with 3x3 kernels and same padding, for MNIST.
    fn default() -> Self {
        let block = |channels| {
            Stage::Block(BlockConfig {
                channels,
                ..BlockConfig::default()
            })
        };
        Self {
            channels: 1,
            input: [28, 28],
            classes: 10,
            dense: vec![128],
            dense_activation: Activation::Relu,
            dropout: 0.0,
            output_bias: true,
            logit_scale: 1.0,
            initialization: Initialization::Pytorch,
            blocks: vec![block(32), block(64)],
        }
    }
}

impl ConvNetConfig {
    /// Returns the convolution blocks, including those of residual groups, in order.
    pub fn conv_blocks(&self) -> impl Iterator<Item = &BlockConfig> {
        self.blocks.iter().flat_map(Stage::blocks)
    }

    /// Returns whether any block has batch normalization.
    pub fn has_batch_norm(&self) -> bool {
        self.conv_blocks().any(|block| block.norm)
    }

    /// Returns whether the first block has whitening filters.
    pub fn has_whitening(&self) -> bool {
        self.conv_blocks().any(|block| block.whitening)
    }

    /// Returns the description of the network for evaluation and inference: batch normalization and the factor
    /// of the logits are part of the weights.
    #[must_use]
    pub fn folded(&self) -> Self {
        let mut config = self.clone();
        config.logit_scale = 1.0;
        for block in config.blocks.iter_mut().flat_map(Stage::blocks_mut) {
            if block.norm {
                block.norm = false;
                block.norm_scale = false;
                block.bias = true;
            }
        }
        config
    }
}
