//! The settings of the modules in a file that does not contain their order of computation.

use model::{Activation, PoolKind};

/// A module of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerHint {
    /// Name of the module, the prefix of its tensors: `features.0` has `features.0.weight`.
    pub name: String,
    /// Kind of the module, with its settings.
    pub kind: LayerKind,
}

/// The kind of a module. Pairs are height and width, and sides are top, left, bottom and right.
#[derive(Clone, Debug, PartialEq)]
pub enum LayerKind {
    /// A convolution in two dimensions.
    Convolution {
        /// Distance between windows.
        stride: [usize; 2],
        /// Zeros on each side.
        padding: [usize; 4],
        /// Distance between the pixels of a window.
        dilation: [usize; 2],
        /// Number of groups of channels.
        groups: usize,
    },
    /// A dense layer.
    Dense,
    /// Pooling over windows. Averages count the padding.
    Pool {
        /// Function of a window.
        kind: PoolKind,
        /// Size of a window.
        size: [usize; 2],
        /// Distance between windows.
        stride: [usize; 2],
        /// Padding above and below, and on the left and right.
        padding: [usize; 2],
        /// Whether windows that exceed the image below and on the right are kept.
        is_ceil: bool,
    },
    /// Pooling to an image of this size; `None` keeps the size.
    AdaptivePool {
        /// Function of a window.
        kind: PoolKind,
        /// Size of the output.
        output: [Option<usize>; 2],
    },
    /// An activation function.
    Activation(Activation),
    /// Batch normalization.
    BatchNorm {
        /// Number that is added to each variance.
        eps: f64,
    },
    /// Dropout, of values or of channels.
    Dropout {
        /// Probability of dropping.
        p: f64,
    },
    /// Flattening of the channels and pixels of each image.
    Flatten,
    /// Softmax or its logarithm over the classes.
    Softmax,
    /// A sigmoid.
    Sigmoid,
    /// Zeros on each side.
    Pad([usize; 4]),
    /// A module without an effect.
    Identity,
    /// Any other module: its class, and a setting that is not supported.
    Other(String),
}
