//! Convolutional networks for small images: what they are made of, and one step of learning.
//!
//! A [`ConvNetConfig`] describes a network, [`ConvNetConfig::layers`] checks it and tabulates its
//! layers, [`ConvNetConfig::init`] makes a [`ConvNet`] of it on a device.
//!
//! This crate knows no files and no command line.

mod config;
mod conv_net;
mod flat;
mod average;
mod layers;
mod step;
mod weights;

pub use config::{BlockConfig, ConvNetConfig, Initialization};
pub use conv_net::{ConvBlock, ConvNet};
pub use kernels::ConvBlockOptions;
pub use layers::{Layer, MAX_KERNEL, MAX_SIZE, Operation, ShapeError};
pub use weights::{Storage, WeightsError};
