//! The layers of a network in a file, one after another.
//!
//! Each reader of an architecture translates its file to a [`Chain`].

use data::PerChannel;
use model::{Activation, Initialization, PoolKind};

use crate::batch_norm::Normalization;
use crate::tensor::Tensor;

/// The layers of a network, in order.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Shape of the images, `[channels, height, width]`.
    pub(crate) input: [usize; 3],
    pub(crate) layers: Vec<ChainLayer>,
    /// The initialization of the framework, for layers that are trained anew.
    pub(crate) initialization: Initialization,
}

/// A layer with its name in the file.
#[derive(Debug)]
pub(crate) struct ChainLayer {
    pub(crate) name: String,
    pub(crate) operation: ChainOperation,
}

/// The operation of a layer. Weights are in PyTorch's layout, except that [`Flatten`](Self::Flatten) determines the
/// order of the inputs of the first dense layer.
#[derive(Debug)]
pub(crate) enum ChainOperation {
    /// A value `x` becomes `scale * x + offset`. Before other layers, `x` is a pixel from 0 to 255.
    Rescale {
        scale: PerChannel,
        offset: PerChannel,
    },
    /// Zeros at the top, left, bottom and right.
    Pad(Sides),
    /// A convolution with a weight `[out, in / groups, ky, kx]`.
    Convolution {
        weight: Tensor,
        bias: Option<Tensor>,
        stride: usize,
        padding: Padding,
        dilation: usize,
        groups: usize,
    },
    /// Batch normalization of the channels, or of flattened feature maps in the order of the file.
    Normalize(Normalization),
    Activate(Activation),
    Pool {
        kind: PoolKind,
        size: usize,
        stride: usize,
        padding: Padding,
    },
    GlobalPool(PoolKind),
    Dropout(f64),
    Flatten {
        order: ChannelOrder,
    },
    /// A dense layer with a weight `[out, in]`.
    Dense {
        weight: Tensor,
        bias: Option<Tensor>,
    },
    Softmax,
    Sigmoid,
    /// The following layers are residual: their input, or its projection, is added to their output.
    ResidualStart,
    ResidualEnd {
        projection: Option<Projection>,
    },
}

/// An unpadded 1x1 convolution of the input of residual layers.
#[derive(Debug)]
pub(crate) struct Projection {
    /// `[out, in, 1, 1]`
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) stride: usize,
}

/// Pixels at the top, left, bottom and right of an image.
pub(crate) type Sides = [usize; 4];

/// The padding of a convolution or pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// This many pixels on each side.
    Each(usize),
    Sides(Sides),
    /// As many pixels as needed for an output of the size of the input, divided by the stride and rounded up. If their
    /// number is odd, one more at the bottom and right.
    Same,
}

/// The position of the channels among the values of flattened feature maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelOrder {
    First,
    Last,
}
