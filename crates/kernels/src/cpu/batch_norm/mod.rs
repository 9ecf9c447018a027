//! Batch normalization with activation. The unit of work is a plane: one channel of one image.

mod shape;
mod moments;
mod normalization;
mod forward;
mod backward;

#[cfg(test)]
mod reference_tests;

pub(crate) use backward::{NormGradients, backward};
pub(crate) use forward::forward;
pub use moments::Moments;
pub(crate) use moments::{EPSILON, channel_moments};
pub(crate) use normalization::ScaleAndBias;
pub(crate) use shape::NormShape;
