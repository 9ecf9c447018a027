//! Construction of a network with initial weights.

use std::sync::{Mutex, PoisonError};

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{DropoutConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use kernels::ConvBlockOptions;

use crate::config::{BlockConfig, ConvNetConfig, Initialization};
use crate::conv_net::{ConvBlock, ConvNet};
use crate::layers::{LayerTable, ShapeError};

/// Held while weights are drawn: all CPU devices of a process share one random number generator.
static DRAWING: Mutex<()> = Mutex::new(());

impl ConvNetConfig {
    /// Builds the network on `device`, with weights drawn from the device's random number generator.
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
        let mut features = LayerTable::new(self)?.features;
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

/// Draws the initial values now, which fixes the order: Burn draws a parameter at its first use.
fn draw<const D: usize>(weight: &Param<Tensor<D>>, bias: Option<&Param<Tensor<1>>>) {
    let _ = weight.val();
    let _ = bias.map(Param::val);
}

impl Initialization {
    fn weights(self) -> Initializer {
        match self {
            // The bound is √3 times the standard deviation that Burn's gain scales.
            Self::Pytorch => Initializer::KaimingUniform {
                gain: 1.0 / 3.0_f64.sqrt(),
                fan_out_only: false,
            },
            Self::Keras => Initializer::XavierUniform { gain: 1.0 },
        }
    }

    /// Returns the initial bias. Burn draws biases from the distribution of the weights, as PyTorch does.
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
