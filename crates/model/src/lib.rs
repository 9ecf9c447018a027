//! Convolutional networks for small images.
//!
//! A [`ConvNetConfig`] describes a network. [`ConvNetConfig::layers`] checks the description and tabulates its
//! layers, [`ConvNetConfig::init`] builds the [`ConvNet`] on a device. The feature `train` adds the training
//! step, burn-train's `TrainStep` for [`ConvNet`].
//!
//! This crate knows no files and no command line.

// The description, its shapes, and the network.
mod block;
mod raw_block;
mod config;
mod shape_error;
mod block_checks;
mod feature_maps;
mod operation;
mod layers;
mod init;
mod conv_block;
mod shortcut;
mod conv_net;
mod inference_net;
mod split_net;

// Operations on parameters.
mod weights;
mod flat_parameters;
mod ema;
mod lookahead;
mod fold;
mod whitening;

// Training.
mod precision;
mod loss;
mod input_gradients;
#[cfg(feature = "train")]
pub mod gradients;
#[cfg(feature = "train")]
mod step;

pub use block::{BlockConfig, Initialization, Pool, PoolKind, ResidualConfig, Stage};
pub use config::ConvNetConfig;
pub use conv_block::ConvBlock;
pub use conv_net::ConvNet;
pub use inference_net::InferenceNet;
pub use init::seed;
pub use input_gradients::InputGradients;
pub use kernels::{Activation, ConvBlockOptions};
pub use layers::Layer;
pub use loss::{cross_entropy, mixed_cross_entropy, weighted_cross_entropy};
pub use operation::{Epilogue, Operation};
pub use precision::Precision;
pub use shape_error::{MAX_KERNEL, MAX_SIZE, ShapeError};
pub use split_net::SplitNet;
#[cfg(feature = "train")]
pub use step::{Objective, TrainingBatch};
pub use weights::{Storage, WeightsError};
pub use whitening::WhiteningError;
