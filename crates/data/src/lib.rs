//! From bytes to batches: IDX files, the MNIST that ships with the crate, splits, normalisation
//! and the loader that feeds training.
//!
//! The modules follow the data: [`idx`] parses bytes, [`source`] finds them, [`dataset`] holds
//! them, [`info`] says what they are, [`split`] divides them, [`normalization`] and [`batch`] turn
//! them into tensors, [`loader`] decides in which order.
//!
//! This crate knows no model and no command line.

pub mod idx;
pub mod source;
pub mod dataset;
pub mod info;
pub mod split;
pub mod normalization;
pub mod batch;
pub mod loader;

pub use batch::{Batch, MnistBatcher, Sample};
pub use dataset::ImageDataset;
pub use info::DatasetInfo;
pub use loader::{Batches, Loader, Order};
pub use normalization::{Normalization, Scaling};
pub use source::{DataError, Splits};
pub use split::{SplitError, SplitMethod, train_validation_split};
