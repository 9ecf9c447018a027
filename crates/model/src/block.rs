//! The description of a convolution block and of a residual group.

use kernels::Activation;
use serde::{Deserialize, Serialize};

/// An element of the list of blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// A convolution block.
    Block(BlockConfig),
    /// Blocks whose input is added to their output.
    Residual(ResidualConfig),
}

/// Description of a block: convolution, optional batch normalization, activation, optional pooling and dropout.
///
/// The order is convolution, normalization, activation, pooling, dropout; with
/// [`pool_first`](Self::pool_first), pooling precedes normalization and activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockConfig {
    /// Number of output channels.
    pub channels: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Stride of the convolution.
    pub stride: usize,
    /// Zero padding on each side; `(kernel - 1) / 2` keeps the image size at stride 1.
    pub padding: usize,
    /// Whether the block has a bias, which batch normalization adds after the normalization.
    pub bias: bool,
    /// Whether the block has batch normalization during training.
    pub norm: bool,
    /// Whether batch normalization has a learned scale per channel.
    pub norm_scale: bool,
    /// Activation function.
    pub activation: Activation,
    /// Pooling.
    pub pool: Pool,
    /// Whether pooling precedes normalization and activation.
    pub pool_first: bool,
    /// Dropout probability at the end of the block; 0 disables dropout.
    pub dropout: f64,
    /// Weight initialization, if it differs from the network's.
    pub initialization: Option<Initialization>,
    /// Whether the filters are frozen and whiten the patches of the training images; Jordan,
    /// "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024).
    pub whitening: bool,
}

/// Description of a residual group: `pool(activation(blocks(x) + shortcut(x)))`; He et al., "Deep residual learning for
/// image recognition" (2016).
///
/// The shortcut is the identity if the blocks keep the shape of their input, else a 1x1 convolution with the
/// batch normalization of the last block.
#[derive(Clone, Debug, PartialEq)]
pub struct ResidualConfig {
    /// The blocks, in order.
    pub blocks: Vec<BlockConfig>,
    /// Activation after the addition.
    pub activation: Activation,
    /// Pooling after the activation.
    pub pool: Pool,
}

/// Pooling of feature maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// No pooling.
    None,
    /// Pooling over square windows. Windows that exceed the padded image are dropped.
    Windows {
        /// The function of a window.
        kind: PoolKind,
        /// Height and width of a window.
        size: usize,
        /// Distance between windows.
        stride: usize,
        /// Padding on each side: zeros for averages, which count them; ignored by maxima.
        padding: usize,
    },
    /// Pooling over the whole image.
    Global(PoolKind),
}

/// The function of a pooling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The maximum.
    Max,
    /// The mean.
    Average,
}

/// Weight initialization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// PyTorch's default: weights and biases uniform in ±1/√fan_in (Kaiming uniform with a = √5).
    Pytorch,
    /// Keras's default: weights uniform in ±√(6/(fan_in + fan_out)) (Glorot uniform), biases 0.
    Keras,
    /// As `Pytorch`, but the first filters, one per input channel, copy their channel: a partial identity;
    /// Zagoruyko and Komodakis, "DiracNets" (2017). For convolutions with an odd kernel.
    Dirac,
}

impl Pool {
    /// 2x2 max-pooling with stride 2.
    pub const MAX: Self = Self::Windows {
        kind: PoolKind::Max,
        size: 2,
        stride: 2,
        padding: 0,
    };
}

impl Default for BlockConfig {
    fn default() -> Self {
        Self {
            channels: 32,
            kernel: 3,
            stride: 1,
            padding: 1,
            bias: true,
            norm: false,
            norm_scale: false,
            activation: Activation::Relu,
            pool: Pool::MAX,
            pool_first: false,
            dropout: 0.0,
            initialization: None,
            whitening: false,
        }
    }
}

impl From<BlockConfig> for Stage {
    fn from(block: BlockConfig) -> Self {
        Self::Block(block)
    }
}

impl Stage {
    /// Returns the convolution blocks: one, or those of the residual group.
    pub fn blocks(&self) -> &[BlockConfig] {
        match self {
            Self::Block(block) => std::slice::from_ref(block),
            Self::Residual(group) => &group.blocks,
        }
    }

    pub(crate) fn blocks_mut(&mut self) -> &mut [BlockConfig] {
        match self {
            Self::Block(block) => std::slice::from_mut(block),
            Self::Residual(group) => &mut group.blocks,
        }
    }
}
