//! Construction of a network with initial weights.

use std::sync::{Mutex, PoisonError};

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{DropoutConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use kernels::Activation;

use crate::block::{BlockConfig, Initialization, Pool, Stage};
use crate::config::ConvNetConfig;
use crate::conv_block::{BlockOptions, ConvBlock};
use crate::conv_net::{ConvNet, HeadOptions};
use crate::layers::LayerTable;
use crate::shape_error::ShapeError;
use crate::shortcut::Shortcut;

/// Held while weights are drawn: all CPU devices of a process share one random number generator.
static DRAWING: Mutex<()> = Mutex::new(());

/// Seeds the random number generator of `device`, but not while another thread draws weights.
pub fn seed(device: &Device, seed: u64) {
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
}

impl ConvNetConfig {
    /// Builds the network on `device`, with weights drawn from the device's random number generator.
    ///
    /// The filters of a whitening block are random until [`ConvNet::whiten`] sets them.
    ///
    /// # Errors
    /// Returns the same errors as [`layers`](Self::layers).
    pub fn init(&self, device: &Device) -> Result<ConvNet, ShapeError> {
        let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        self.build(device)
    }

    /// Builds the network with the weights of a seed. On a CPU they are the same in each call, also while other
    /// threads build networks.
    ///
    /// # Errors
    /// Returns the same errors as [`layers`](Self::layers).
    pub fn init_seeded(&self, seed: u64, device: &Device) -> Result<ConvNet, ShapeError> {
        let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        device.seed(seed);
        self.build(device)
    }

    fn build(&self, device: &Device) -> Result<ConvNet, ShapeError> {
        let LayerTable {
            mut features,
            projections,
            ..
        } = LayerTable::new(self)?;
        let mut projections = projections.into_iter();
        let mut channels = self.channels;
        let mut blocks = Vec::new();
        let mut shortcuts = Vec::new();
        for stage in &self.blocks {
            let (first, inputs) = (blocks.len(), channels);
            for block in stage.blocks() {
                blocks.push(self.block(channels, block, device));
                channels = block.channels;
            }
            if let Stage::Residual(group) = stage {
                let stride = projections.next().flatten();
                let last = group.blocks.last();
                let projection = stride
                    .zip(last)
                    .map(|(stride, last)| self.block(inputs, &projection(last, stride), device));
                shortcuts.push(Shortcut {
                    projection,
                    first,
                    last: blocks.len() - 1,
                    activation: group.activation,
                    pool: group.pool,
                });
            }
        }
        let mut hidden = Vec::with_capacity(self.dense.len());
        for &outputs in &self.dense {
            hidden.push(self.linear(features, outputs, true, device));
            features = outputs;
        }
        Ok(ConvNet {
            blocks,
            shortcuts,
            hidden,
            dropout: DropoutConfig::new(self.dropout).init(),
            output: self.linear(features, self.classes, self.output_bias, device),
            head: HeadOptions {
                activation: self.dense_activation,
                logit_scale: self.logit_scale,
            },
        })
    }

    fn block(&self, inputs: usize, block: &BlockConfig, device: &Device) -> ConvBlock {
        ConvBlock {
            conv: self.conv(inputs, block, device),
            scale: block
                .norm_scale
                .then(|| Initializer::Ones.init([block.channels], device)),
            dropout: (block.dropout > 0.0).then(|| DropoutConfig::new(block.dropout).init()),
            options: BlockOptions {
                stride: block.stride,
                padding: block.padding,
                norm: block.norm,
                activation: block.activation,
                pool: block.pool,
                pool_first: block.pool_first,
                is_frozen: block.whitening,
            },
        }
    }

    fn conv(&self, inputs: usize, block: &BlockConfig, device: &Device) -> Conv2d {
        let initialization = block.initialization.unwrap_or(self.initialization);
        let padding = block.padding;
        let mut conv = Conv2dConfig::new([inputs, block.channels], [block.kernel; 2])
            .with_stride([block.stride; 2])
            .with_padding(PaddingConfig2d::Explicit(
                padding, padding, padding, padding,
            ))
            .with_initializer(initialization.weights())
            .with_bias(block.bias)
            .init(device);
        // As in PyTorch, a normalization with scale starts with zeros; without one, it uses the convolution's bias.
        conv.bias = conv.bias.map(|bias| match block.norm_scale {
            true => Initializer::Zeros.init([block.channels], device),
            false => initialization.bias(bias, block.channels, device),
        });
        draw(&conv.weight, conv.bias.as_ref());
        if initialization == Initialization::Dirac {
            conv.weight = conv.weight.map(|weights| {
                let is_autodiff = weights.device().is_autodiff();
                let weights = with_identity(weights.without_autodiff());
                match is_autodiff {
                    true => Tensor::from_inner(weights).require_grad(),
                    false => weights,
                }
            });
        }
        conv
    }

    fn linear(&self, inputs: usize, outputs: usize, bias: bool, device: &Device) -> Linear {
        let mut linear = LinearConfig::new(inputs, outputs)
            .with_initializer(self.initialization.weights())
            .with_bias(bias)
            .init(device);
        let bias = linear.bias;
        linear.bias = bias.map(|bias| self.initialization.bias(bias, outputs, device));
        draw(&linear.weight, linear.bias.as_ref());
        linear
    }
}

/// Returns the projection of a residual group that ends with the block `last`.
fn projection(last: &BlockConfig, stride: usize) -> BlockConfig {
    BlockConfig {
        kernel: 1,
        stride,
        padding: 0,
        activation: Activation::None,
        pool: Pool::None,
        pool_first: false,
        dropout: 0.0,
        initialization: None,
        whitening: false,
        ..*last
    }
}

/// Draws the initial values now, which fixes the order: Burn draws a parameter at its first use.
fn draw<const D: usize>(weight: &Param<Tensor<D>>, bias: Option<&Param<Tensor<1>>>) {
    let _ = weight.val();
    let _ = bias.map(Param::val);
}

/// Replaces the first filters of weights `[O, C, K, K]` without autodiff, one per channel, by the identity.
fn with_identity(weights: Tensor<4>) -> Tensor<4> {
    let [outputs, inputs, kernel, _] = weights.dims();
    let count = outputs.min(inputs);
    let center = (kernel * kernel) / 2;
    let mut identity = vec![0.0f32; count * inputs * kernel * kernel];
    for channel in 0..count {
        identity[(channel * inputs + channel) * kernel * kernel + center] = 1.0;
    }
    let shape = [count, inputs, kernel, kernel];
    let identity = Tensor::from_data(TensorData::new(identity, shape), &weights.device());
    match outputs - count {
        0 => identity,
        _ => Tensor::cat(vec![identity, weights.slice_dim(0, count..outputs)], 0),
    }
}

impl Initialization {
    fn weights(self) -> Initializer {
        match self {
            // The bound is √3 times the standard deviation that Burn's gain scales.
            Self::Pytorch | Self::Dirac => Initializer::KaimingUniform {
                gain: 1.0 / 3.0_f64.sqrt(),
                fan_out_only: false,
            },
            Self::Keras => Initializer::XavierUniform { gain: 1.0 },
        }
    }

    /// Returns the initial bias. Burn draws biases from the distribution of the weights, as PyTorch does.
    fn bias(self, drawn: Param<Tensor<1>>, size: usize, device: &Device) -> Param<Tensor<1>> {
        match self {
            Self::Pytorch => drawn,
            Self::Keras | Self::Dirac => Initializer::Zeros.init([size], device),
        }
    }
}
