//! The description of a network, as saved with each run.

use serde::{Deserialize, Serialize};

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
    /// Dropout probability before the last layer; 0 disables dropout.
    pub dropout: f64,
    /// Weight initialization.
    pub initialization: Initialization,
    /// Convolution blocks, in order.
    pub blocks: Vec<BlockConfig>,
}

/// Description of a block: convolution with stride 1, optional batch normalization, ReLU, optional 2x2
/// max-pooling with stride 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockConfig {
    /// Number of output channels.
    pub channels: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Zero padding on each side; `(kernel - 1) / 2` keeps the image size.
    pub padding: usize,
    /// Whether the block ends with max-pooling, which drops an odd last row or column.
    pub pool: bool,
    /// Whether batch normalization precedes bias and ReLU during training.
    pub norm: bool,
}

/// Weight initialization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// PyTorch's default: weights and biases uniform in ±1/√fan_in (Kaiming uniform with a = √5).
    Pytorch,
    /// Keras's default: weights uniform in ±√(6/(fan_in + fan_out)) (Glorot uniform), biases 0.
    Keras,
}

impl Default for ConvNetConfig {
    /// Returns conv32-pool-conv64-pool-fc128-fc10 with 3x3 kernels and same padding, for MNIST.
    fn default() -> Self {
        let block = |channels| BlockConfig {
            channels,
            ..BlockConfig::default()
        };
        Self {
            channels: 1,
            input: [28, 28],
            classes: 10,
            dense: vec![128],
            dropout: 0.0,
            initialization: Initialization::Pytorch,
            blocks: vec![block(32), block(64)],
        }
    }
}

impl Default for BlockConfig {
    fn default() -> Self {
        Self {
            channels: 32,
            kernel: 3,
            padding: 1,
            pool: true,
            norm: false,
        }
    }
}

impl ConvNetConfig {
    /// Returns whether any block has batch normalization.
    pub fn has_batch_norm(&self) -> bool {
        self.blocks.iter().any(|block| block.norm)
    }

    /// Returns the description of the network after batch normalization is folded into its weights, which is
    /// the form for evaluation and inference.
    #[must_use]
    pub fn without_batch_norm(&self) -> Self {
        let mut config = self.clone();
        config
            .blocks
            .iter_mut()
            .for_each(|block| block.norm = false);
        config
    }
}
