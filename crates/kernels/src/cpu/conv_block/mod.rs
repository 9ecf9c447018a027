//! The convolution block: convolution with stride 1, bias, ReLU, 2x2 max-pooling.

mod shape;
mod forward;
mod backward;

#[cfg(test)]
mod reference_tests;

pub(crate) use backward::backward;
pub(crate) use forward::forward;
pub(crate) use shape::BlockShape;
pub use shape::ConvBlockOptions;
#[cfg(feature = "remote")]
pub(crate) use shape::RELU_CLIPPED;
