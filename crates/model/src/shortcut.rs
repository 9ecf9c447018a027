//! The shortcut of a residual group.

use burn::module::Module;
use burn::tensor::Tensor;
use kernels::{Activation, activate};

use crate::block::Pool;
use crate::conv_block::{ConvBlock, pooled};

/// Adds the input of some consecutive blocks to their output.
#[derive(Module, Debug)]
pub(crate) struct Shortcut {
    /// A 1x1 convolution of the input; `None` for the identity.
    pub(crate) projection: Option<ConvBlock>,
    /// Index of the first block of the group.
    #[module(skip)]
    pub(crate) first: usize,
    /// Index of the last block of the group.
    #[module(skip)]
    pub(crate) last: usize,
    /// Activation of the sum.
    #[module(skip)]
    pub(crate) activation: Activation,
    /// Pooling after the activation.
    #[module(skip)]
    pub(crate) pool: Pool,
}

impl Shortcut {
    /// Adds the shortcut to the output of the blocks, both `[N, C, H, W]`, and applies activation and
    /// pooling.
    pub(crate) fn add(&self, output: Tensor<4>, shortcut: Tensor<4>) -> Tensor<4> {
        pooled(activate(output + shortcut, self.activation), self.pool)
    }
}
