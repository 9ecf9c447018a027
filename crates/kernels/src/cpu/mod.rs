//! The kernels: SIMD code on row-major slices of `f32`, independent of Burn.

pub(crate) mod simd;
mod parallelism;
pub(crate) mod activation;
pub(crate) mod conv_block;
pub(crate) mod batch_norm;
pub(crate) mod dense_layer;
pub(crate) mod adam;
pub(crate) mod sgd;
