//! What training on a CPU spends its time on: [`conv_block()`], and the optimizer [`FusedAdam`].
//!
//! Burn composes a block of a convolutional network of convolution, bias, ReLU and max-pooling,
//! each with its own pass over memory and its own gradient. Here the block is one operation with
//! its own backward pass, registered with Burn for the CPU backends `flex` and `ndarray`, and asked of the workers
//! that have these; on every other device, and for numbers that are no `f32`, the same function composes Burn's
//! operations.
//!
//! The optimizer updates each parameter in one pass there. On a CPU of this process batch normalization and the ReLU
//! after it are one operation too.
//!
//! This crate knows no dataset, no network and no command line.
#![recursion_limit = "256"]

mod batch_norm;
mod conv_block;
mod shape;

#[cfg_attr(
    feature = "ndarray",
    expect(
        deprecated,
        reason = "ndarray is deprecated upstream and supported here"
    )
)]
#[cfg_attr(
    not(any(feature = "flex", feature = "ndarray")),
    expect(unused_variables, reason = "there is no backend to call")
)]
mod backend;
mod buffer;
mod simd;
mod transpose;

mod filters;
mod direct;
mod epilogue;
mod forward;

mod winners;
mod blocks;
mod registers;
mod weight_gradient;
mod input_gradient;
mod backward;

mod channels;

mod adam;
mod optimizer;

#[cfg(test)]
mod against_definition;

pub use backend::is_cpu;
#[cfg(feature = "remote")]
pub use backend::{declare_fused, with_fused};
pub use batch_norm::{batch_norm_relu, moments};
pub use channels::Moments;
pub use conv_block::{ConvBlockOptions, conv_block};
pub use optimizer::FusedAdam;
