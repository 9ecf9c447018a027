//! Convolutional networks for small images.
//!
//! A [`ConvNetConfig`] describes a network. [`ConvNetConfig::layers`] checks the description and tabulates its
//! layers, [`ConvNetConfig::init`] builds the [`ConvNet`] on a device. The feature `train` adds the training
//! step, burn-train's `TrainStep` for [`ConvNet`].
//!
//! This crate knows no files and no command line.

// The description, its shapes, and the network.
mod config;
mod layers;
mod init;
mod conv_net;

// Operations on parameters.
mod weights;
mod flat_parameters;
mod ema;
mod fold_batch_norm;

// Training.
mod precision;
mod loss;
#[cfg(feature = "train")]
pub mod gradients;
#[cfg(feature = "train")]
mod step;

pub use config::{BlockConfig, ConvNetConfig, Initialization};
pub use conv_net::{ConvBlock, ConvNet};
pub use kernels::ConvBlockOptions;
pub use layers::{Layer, MAX_KERNEL, MAX_SIZE, Operation, ShapeError};
pub use loss::{cross_entropy, mixed_cross_entropy};
pub use precision::Precision;
#[cfg(feature = "train")]
pub use step::{Objective, TrainingBatch};
pub use weights::{Storage, WeightsError};
