//! The network.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Dropout, Linear};
use burn::tensor::activation::relu;
use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor};
use kernels::{ConvBlockOptions, batch_norm_relu, conv_block};

/// Convolution with stride 1, ReLU, and 2x2 max-pooling with stride 2 where `options` say so.
///
/// The parameters are those of an ordinary convolution; the block runs as one operation. While it learns, it
/// may normalize each channel over the batch before bias and ReLU; [`ConvNet::folded`] makes that part of its
/// parameters.
#[derive(Module, Debug)]
pub struct ConvBlock {
    pub(crate) conv: Conv2d,
    #[module(skip)]
    pub(crate) options: ConvBlockOptions,
    #[module(skip)]
    pub(crate) norm: bool,
}

/// Convolution blocks, dense layers and one logit per class.
///
/// Parameters are of 32 bits; the network computes with the type of numbers that its images have. Images of 16 bits
/// so make it a mixed-precision one, Micikevicius et al. (2018), whose gradients are of 32 bits again.
#[derive(Module, Debug)]
pub struct ConvNet {
    pub(crate) blocks: Vec<ConvBlock>,
    pub(crate) hidden: Vec<Linear>,
    pub(crate) dropout: Dropout,
    pub(crate) output: Linear,
}

impl ConvBlock {
    /// A block with these weights `[channels, C, K, K]` and no bias.
    pub fn with_weights(weights: Tensor<4>, options: ConvBlockOptions) -> Self {
        let [outputs, inputs, kernel, _] = weights.dims();
        let config = Conv2dConfig::new([inputs, outputs], [kernel; 2]).with_bias(false);
        let mut conv = config.init(&weights.device());
        conv.weight = Param::from_tensor(weights);
        Self {
            conv,
            options,
            norm: false,
        }
    }

    /// The weights, `[channels, C, K, K]`.
    pub fn weights(&self) -> Tensor<4> {
        self.conv.weight.val()
    }

    /// `[N, C, H, W]` to `[N, channels, H', W']`, H' and W' halved by the pool.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let dtype = images.dtype();
        if self.norm {
            // Sums over a batch have more digits than 16 bits hold.
            let maps = self.convolve(images).cast(DType::F32);
            return batch_norm_relu(maps, self.bias()).cast(dtype);
        }
        let bias = self.conv.bias.as_ref().map(|bias| bias.val().cast(dtype));
        conv_block(images, self.weights().cast(dtype), bias, self.options)
    }

    /// What is normalized: convolved and pooled, without bias. Normalization, bias and ReLU keep the order of
    /// numbers, so that they may come after the pool, which leaves them a quarter of the work.
    pub(crate) fn convolve(&self, images: Tensor<4>) -> Tensor<4> {
        let options = ConvBlockOptions {
            relu: false,
            ..self.options
        };
        let weights = self.weights().cast(images.dtype());
        conv_block(images, weights, None, options)
    }

    /// The bias, `[channels]`.
    pub(crate) fn bias(&self) -> Tensor<1> {
        let weights = &self.conv.weight;
        match &self.conv.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([weights.dims()[0]], &weights.device()),
        }
    }
}

impl ConvNet {
    /// Logits of normalised images.
    ///
    /// # Shapes
    /// - `images`: `[N, C, H, W]`
    /// - after block i: `[N, channels_i, H_i, W_i]`
    /// - flattened: `[N, channels * H_last * W_last]`, channels first, as PyTorch flattens
    /// - after hidden layer j: `[N, dense_j]`
    /// - logits: `[N, classes]`, of 32 bits
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let features = self
            .blocks
            .iter()
            .fold(images, |images, block| block.forward(images));
        self.classify(features)
    }

    /// The convolution blocks, in order.
    pub fn blocks(&self) -> &[ConvBlock] {
        &self.blocks
    }

    /// The feature maps after each block, `[N, channels_i, H_i, W_i]`.
    pub fn feature_maps(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        self.blocks
            .iter()
            .scan(images, |images, block| {
                *images = block.forward(images.clone());
                Some(images.clone())
            })
            .collect()
    }

    /// Whether all parameters are finite numbers. Waits for the device.
    pub fn is_finite(&self) -> bool {
        let mut finite = Finite(true);
        self.visit(&mut finite);
        finite.0
    }

    /// Logits `[N, classes]` of the last block's feature maps.
    fn classify(&self, features: Tensor<4>) -> Tensor<2> {
        let mut x: Tensor<2> = features.flatten(1, 3);
        for layer in &self.hidden {
            x = relu(dense(layer, x));
        }
        dense(&self.output, self.dropout.forward(x)).cast(DType::F32)
    }
}

/// A dense layer, `[N, inputs]` to `[N, outputs]`, in the type of numbers that `x` has.
fn dense(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    let bias = layer.bias.as_ref().map(|bias| bias.val().cast(dtype));
    linear(x, layer.weight.val().cast(dtype), bias)
}

/// Whether the parameters that were visited are finite numbers.
struct Finite(bool);

impl ModuleVisitor for Finite {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 = self.0 && param.val().is_finite().all().into_scalar::<bool>();
    }
}
