//! The description of a network.

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{DropoutConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use kernels::ConvBlockOptions;
use serde::{Deserialize, Serialize};

use crate::conv_net::{ConvBlock, ConvNet};
use crate::layers::{Layer, ShapeError, Table};

/// A network for small images: convolution blocks, dense layers, one logit per class.
///
/// Without blocks it is a dense network, the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConvNetConfig {
    /// Values of a pixel of the images: 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// `[height, width]` of the images.
    pub input: [usize; 2],
    /// Number of classes.
    pub classes: usize,
    /// Outputs of each hidden dense layer.
    pub dense: Vec<usize>,
    /// Probability that dropout before the last layer zeroes a value; 0 for none.
    pub dropout: f64,
    /// How weights start.
    pub initialization: Initialization,
    /// The convolution blocks.
    pub blocks: Vec<BlockConfig>,
}

/// Convolution, batch normalization if asked for, ReLU and, if asked for, 2x2 max-pooling with stride 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockConfig {
    /// Filters, that is output channels.
    pub channels: usize,
    /// Rows and columns of a filter.
    pub kernel: usize,
    /// Zeros around the input on each side; `(kernel - 1) / 2` keeps its size.
    pub padding: usize,
    /// Whether 2x2 max-pooling halves the output, dropping an odd edge.
    pub pool: bool,
    /// Whether each channel is normalized over the batch while learning, before bias and ReLU.
    pub norm: bool,
}

/// How weights and biases are drawn before training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// PyTorch's default: both uniform in ±1/√fan_in (Kaiming uniform with a = √5).
    Pytorch,
    /// Keras's default: weights Glorot uniform, in ±√(6/(fan_in + fan_out)), biases 0.
    Keras,
}

impl Default for ConvNetConfig {
    /// conv32-pool-conv64-pool-fc128-fc10 with 3x3 filters and same padding, for MNIST.
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
    /// The layers, in order, with their shapes and sizes.
    ///
    /// # Errors
    /// When no such network exists: a size is zero or absurd, or an image shrinks to nothing.
    pub fn layers(&self) -> Result<Vec<Layer>, ShapeError> {
        Ok(Table::of(self)?.layers)
    }

    /// Weights and biases of all layers together.
    ///
    /// # Errors
    /// Those of [`layers`](Self::layers).
    pub fn parameters(&self) -> Result<usize, ShapeError> {
        Ok(self.layers()?.iter().map(|layer| layer.parameters).sum())
    }

    /// What a network of this description is judged and used as: its normalization is part of its weights.
    #[must_use]
    pub fn folded(&self) -> Self {
        let mut folded = self.clone();
        folded
            .blocks
            .iter_mut()
            .for_each(|block| block.norm = false);
        folded
    }

    /// The network with freshly drawn weights, from the device's random numbers.
    ///
    /// # Errors
    /// Those of [`layers`](Self::layers).
    pub fn init(&self, device: &Device) -> Result<ConvNet, ShapeError> {
        let mut features = Table::of(self)?.features;
        let mut channels = self.channels;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            blocks.push(ConvBlock {
                conv: self.conv(channels, block, device),
                options: ConvBlockOptions {
                    padding: block.padding,
                    relu: true,
                    pool: block.pool,
                },
                norm: block.norm,
            });
            channels = block.channels;
        }
        let mut hidden = Vec::with_capacity(self.dense.len());
        for &outputs in &self.dense {
            hidden.push(self.linear(features, outputs, device));
            features = outputs;
        }
        Ok(ConvNet {
            blocks,
            hidden,
            dropout: DropoutConfig::new(self.dropout).init(),
            output: self.linear(features, self.classes, device),
        })
    }

    fn conv(&self, channels_in: usize, block: &BlockConfig, device: &Device) -> Conv2d {
        let mut conv = Conv2dConfig::new([channels_in, block.channels], [block.kernel; 2])
            .with_padding(PaddingConfig2d::Explicit(
                block.padding,
                block.padding,
                block.padding,
                block.padding,
            ))
            .with_initializer(self.initialization.weights())
            .init(device);
        conv.bias = self.initialization.bias(conv.bias, block.channels, device);
        draw(&conv.weight, conv.bias.as_ref());
        conv
    }

    fn linear(&self, inputs: usize, outputs: usize, device: &Device) -> Linear {
        let mut linear = LinearConfig::new(inputs, outputs)
            .with_initializer(self.initialization.weights())
            .init(device);
        linear.bias = self.initialization.bias(linear.bias, outputs, device);
        draw(&linear.weight, linear.bias.as_ref());
        linear
    }
}

/// Parameters are drawn at their first use; using them here fixes the order.
fn draw<const D: usize>(weight: &Param<Tensor<D>>, bias: Option<&Param<Tensor<1>>>) {
    let _ = weight.val();
    let _ = bias.map(Param::val);
}

impl Initialization {
    fn weights(self) -> Initializer {
        match self {
            // Burn's gain leaves out the √3 between a uniform bound and its deviation.
            Self::Pytorch => Initializer::KaimingUniform {
                gain: 1.0 / 3.0_f64.sqrt(),
                fan_out_only: false,
            },
            Self::Keras => Initializer::XavierUniform { gain: 1.0 },
        }
    }

    /// Burn draws a layer's bias as its weights, which is right for PyTorch alone.
    fn bias(
        self,
        drawn: Option<Param<Tensor<1>>>,
        size: usize,
        device: &Device,
    ) -> Option<Param<Tensor<1>>> {
        match self {
            Self::Pytorch => drawn,
            Self::Keras => Some(Initializer::Zeros.init([size], device)),
        }
    }
}
