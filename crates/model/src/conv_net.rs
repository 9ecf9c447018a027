//! The network and its convolution blocks.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Dropout, Linear};
use burn::tensor::activation::relu;
use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor};
use kernels::{ConvBlockOptions, batch_norm_relu, conv_block};

/// Convolution with stride 1, optional batch normalization, ReLU, and optional 2x2 max-pooling with stride 2.
///
/// The parameters are those of a plain convolution; the block runs as one fused operation where the backend has
/// one. Batch normalization is for training only: [`ConvNet::fold_batch_norm`] folds it into the parameters.
#[derive(Module, Debug)]
pub struct ConvBlock {
    pub(crate) conv: Conv2d,
    #[module(skip)]
    pub(crate) options: ConvBlockOptions,
    #[module(skip)]
    pub(crate) norm: bool,
}

/// Convolution blocks, hidden dense layers, dropout, and a dense layer with one logit per class.
///
/// Parameters are in 32 bits, and the network computes in the number format of its input. Images in 16 bits
/// therefore give mixed-precision training, with gradients in 32 bits; Micikevicius et al. (2018).
#[derive(Module, Debug)]
pub struct ConvNet {
    pub(crate) blocks: Vec<ConvBlock>,
    pub(crate) hidden: Vec<Linear>,
    pub(crate) dropout: Dropout,
    pub(crate) output: Linear,
}

impl ConvBlock {
    /// Creates a block without bias from the weights `[channels, C, K, K]`.
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

    /// Returns the weights, `[channels, C, K, K]`.
    pub fn weights(&self) -> Tensor<4> {
        self.conv.weight.val()
    }

    /// Computes the feature maps `[N, channels, H', W']` of images `[N, C, H, W]`.
    ///
    /// H' and W' are the output sizes of the convolution, halved and rounded down if the block pools.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let dtype = images.dtype();
        if self.norm {
            // Batch statistics need more precision than 16 bits have.
            let maps = self.convolve(images).cast(DType::F32);
            return batch_norm_relu(maps, self.bias()).cast(dtype);
        }
        let bias = self.conv.bias.as_ref().map(|bias| bias.val().cast(dtype));
        conv_block(images, self.weights().cast(dtype), bias, self.options)
    }

    /// Convolves and pools, without bias and ReLU: the input of batch normalization.
    ///
    /// Normalization, bias and ReLU are monotonic, so they commute with max-pooling; after it they process a
    /// quarter of the values.
    pub(crate) fn convolve(&self, images: Tensor<4>) -> Tensor<4> {
        let options = ConvBlockOptions {
            relu: false,
            ..self.options
        };
        let weights = self.weights().cast(images.dtype());
        conv_block(images, weights, None, options)
    }

    /// Returns the bias, `[channels]`; zeros if the block has none.
    pub(crate) fn bias(&self) -> Tensor<1> {
        let weights = &self.conv.weight;
        match &self.conv.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([weights.dims()[0]], &weights.device()),
        }
    }
}

impl ConvNet {
    /// Computes the logits of normalized images.
    ///
    /// # Shapes
    /// - `images`: `[N, C, H, W]`
    /// - after block i: `[N, channels_i, H_i, W_i]`
    /// - flattened: `[N, channels * H_last * W_last]`, channels first, as PyTorch flattens
    /// - after hidden layer j: `[N, dense_j]`
    /// - logits: `[N, classes]`, in 32 bits
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let features = self
            .blocks
            .iter()
            .fold(images, |images, block| block.forward(images));
        self.classify(features)
    }

    /// Returns the convolution blocks, in order.
    pub fn blocks(&self) -> &[ConvBlock] {
        &self.blocks
    }

    /// Computes the feature maps after each block, `[N, channels_i, H_i, W_i]`.
    pub fn feature_maps(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        self.blocks
            .iter()
            .scan(images, |images, block| {
                *images = block.forward(images.clone());
                Some(images.clone())
            })
            .collect()
    }

    /// Returns whether all parameters are finite. Waits for the device.
    pub fn is_finite(&self) -> bool {
        let mut finite = AllFinite(true);
        self.visit(&mut finite);
        finite.0
    }

    /// Computes the logits `[N, classes]` from the feature maps of the last block.
    fn classify(&self, features: Tensor<4>) -> Tensor<2> {
        let mut x: Tensor<2> = features.flatten(1, 3);
        for layer in &self.hidden {
            x = relu(dense(layer, x));
        }
        dense(&self.output, self.dropout.forward(x)).cast(DType::F32)
    }
}

/// Applies a dense layer, `[N, inputs]` to `[N, outputs]`, in the number format of `x`.
fn dense(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    let bias = layer.bias.as_ref().map(|bias| bias.val().cast(dtype));
    linear(x, layer.weight.val().cast(dtype), bias)
}

/// Checks that all visited parameters are finite.
struct AllFinite(bool);

impl ModuleVisitor for AllFinite {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 = self.0 && param.val().is_finite().all().into_scalar::<bool>();
    }
}
