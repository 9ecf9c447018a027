//! Registers the kernels and their gradients with Burn's backends.

mod device;
mod cpu_backend;
mod conv_block;
mod activation;
mod batch_norm;
mod dense_layer;
mod adam;
mod sgd;
#[cfg(feature = "remote")]
mod remote;

pub(crate) use activation::activate;
pub(crate) use adam::adam_step;
pub(crate) use batch_norm::{NormOptions, batch_norm};
pub(crate) use conv_block::conv_block;
pub(crate) use dense_layer::dense_layer;
pub use device::is_cpu;
pub(crate) use device::is_fused;
#[cfg(feature = "remote")]
pub use remote::{declare_fused, with_fused};
pub(crate) use sgd::sgd_step;
