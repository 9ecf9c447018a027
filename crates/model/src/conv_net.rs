//! The network.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Dropout, Linear};
use burn::tensor::{DType, Tensor};
use kernels::{Activation, dense_layer};

use crate::conv_block::ConvBlock;
use crate::shortcut::Shortcut;

/// Convolution blocks, hidden dense layers, dropout, and a dense layer with one logit per class.
///
/// Parameters are in 32 bits, and the network computes in the number format of its input. Images in 16 bits
/// therefore give mixed-precision training, with gradients in 32 bits; Micikevicius et al. (2018).
#[derive(Module, Debug)]
pub struct ConvNet {
    pub(crate) blocks: Vec<ConvBlock>,
    /// The shortcuts of residual groups, in order. Groups do not overlap.
    pub(crate) shortcuts: Vec<Shortcut>,
    pub(crate) hidden: Vec<Linear>,
    pub(crate) dropout: Dropout,
    pub(crate) output: Linear,
    #[module(skip)]
    pub(crate) head: HeadOptions,
}

/// Settings of the dense layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadOptions {
    /// Activation of the hidden layers.
    pub(crate) activation: Activation,
    /// Factor of the logits.
    pub(crate) logit_scale: f64,
}

/// A convolution of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The block of this index.
    Block(usize),
    /// The projection of the shortcut of this index.
    Projection(usize),
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
        let features = self.run_blocks(images, |_, block, images| block.forward(images));
        self.classify(features)
    }

    /// Returns the convolution blocks, in order, with those of residual groups.
    pub fn blocks(&self) -> &[ConvBlock] {
        &self.blocks
    }

    /// Number of values of the feature maps of the last block, which the dense layers compute with.
    pub fn features(&self) -> usize {
        let first = self.hidden.first().unwrap_or(&self.output);
        let [features, _] = first.weight.dims();
        features
    }

    /// Computes the feature maps after each block, `[N, channels_i, H_i, W_i]`. Those of the last block of a
    /// residual group are without its shortcut.
    pub fn feature_maps(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut maps = Vec::with_capacity(self.blocks.len());
        self.run_blocks(images, |place, block, images| {
            let output = block.forward(images);
            if let Place::Block(_) = place {
                maps.push(output.clone());
            }
            output
        });
        maps
    }

    /// Returns whether all parameters are finite. Waits for the device.
    pub fn is_finite(&self) -> bool {
        let mut finite = AllFinite(true);
        self.visit(&mut finite);
        finite.0
    }

    /// Computes the feature maps of the last block. `run` computes those of one convolution.
    pub(crate) fn run_blocks(
        &self,
        images: Tensor<4>,
        mut run: impl FnMut(Place, &ConvBlock, Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let mut shortcuts = self.shortcuts.iter().enumerate().peekable();
        let mut group_input = None;
        let mut maps = images;
        for (index, block) in self.blocks.iter().enumerate() {
            let next = shortcuts.peek();
            if next.is_some_and(|(_, shortcut)| shortcut.first == index) {
                group_input = Some(maps.clone());
            }
            maps = run(Place::Block(index), block, maps);
            let ended = shortcuts.next_if(|(_, shortcut)| shortcut.last == index);
            if let Some((number, shortcut)) = ended
                && let Some(input) = group_input.take()
            {
                let input = match &shortcut.projection {
                    Some(projection) => run(Place::Projection(number), projection, input),
                    None => input,
                };
                maps = shortcut.add(maps, input);
            }
        }
        maps
    }

    /// Computes the logits `[N, classes]` from the feature maps of the last block.
    pub(crate) fn classify(&self, features: Tensor<4>) -> Tensor<2> {
        let x = self.run_hidden(features);
        self.logits(x)
    }

    /// Computes the activations of the last hidden dense layer from the feature maps of the last block, or flattens them in a
    /// network without hidden layers: `[N, inputs of the output layer]`.
    pub(crate) fn run_hidden(&self, features: Tensor<4>) -> Tensor<2> {
        let mut x: Tensor<2> = features.flatten(1, 3);
        for layer in &self.hidden {
            x = dense(layer, x, self.head.activation);
        }
        x
    }

    /// Computes the logits `[N, classes]` from the inputs of the output layer.
    pub(crate) fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.dropout.forward(x);
        let logits = dense(&self.output, x, Activation::None).cast(DType::F32);
        match self.head.logit_scale {
            1.0 => logits,
            factor => logits.mul_scalar(factor),
        }
    }
}

/// Applies a dense layer and an activation, `[N, inputs]` to `[N, outputs]`, in the number format of `x`.
fn dense(layer: &Linear, x: Tensor<2>, activation: Activation) -> Tensor<2> {
    let dtype = x.dtype();
    let bias = layer.bias.as_ref().map(|bias| bias.val().cast(dtype));
    dense_layer(x, layer.weight.val().cast(dtype), bias, activation)
}

/// Checks that all visited parameters are finite.
struct AllFinite(bool);

impl ModuleVisitor for AllFinite {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 = self.0 && param.val().is_finite().all().into_scalar::<bool>();
    }
}
