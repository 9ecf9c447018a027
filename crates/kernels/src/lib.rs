//! Fused operations for training on CPUs: the convolution block [`conv_block()`], activations [`activate()`], batch
//! normalization with activation [`batch_norm()`], and the optimizers [`FusedAdam`]
//! and [`FusedSgd`].
//!
//! Burn computes convolution, bias, ReLU and max-pooling as four operations, each with its own pass over memory and
//! its own gradient. Here they are one operation with its own backward pass. The same holds for batch normalization
//! with activation, and for an optimizer step, which reads and writes each parameter once.
//!
//! The public functions accept any device and element type. They use the fused kernels for `f32` on the CPU backends
//! `flex` and `ndarray`; the convolution block and Adam also on remote devices whose worker has such a
//! backend. Otherwise they compose Burn's operations.
//!
//! # Layers
//! - `conv_block`, `activation`, `batch_norm`, `fused_adam`, `fused_sgd`: the public operations
//! - `backend`: registers the kernels and their gradients with Burn; the only place that names backends
//! - `cpu`: the kernels, on slices of `f32`; independent of Burn
//!
//! This crate knows no data set, no network and no command line.
#![recursion_limit = "256"]

#[cfg(feature = "mimalloc")]
mod allocator;
mod conv_block;
mod activation;
mod batch_norm;
mod dense_layer;
mod fused_step;
mod fused_adam;
mod fused_sgd;

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

mod cpu;

pub use activation::activate;
#[cfg(feature = "mimalloc")]
pub use allocator::keep_freed_memory;
pub use backend::is_cpu;
#[cfg(feature = "remote")]
pub use backend::{declare_fused, with_fused};
pub use batch_norm::{batch_norm, moments};
pub use conv_block::{PackedFilters, conv_block};
pub use cpu::activation::Activation;
pub use cpu::batch_norm::Moments;
pub use cpu::conv_block::ConvBlockOptions;
pub use cpu::simd::{UnknownInstructionSet, instruction_set};
pub use dense_layer::dense_layer;
pub use fused_adam::FusedAdam;
pub use fused_sgd::{FusedSgd, FusedSgdState};
