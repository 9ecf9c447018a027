//! From bytes to batches: IDX files, the MNIST that ships with the crate, folders of pictures,
//! splits, normalisation and the loader that feeds training.
//!
//! The modules follow the data: [`idx`] and [`picture`] parse bytes, [`preparation`] makes a
//! picture look like the images of a dataset, [`source`], [`listing`] and [`folder`] find files,
//! [`dataset`] holds images, [`info`] says what they are, [`split`] divides them, [`augmentation`]
//! changes those that are learned from, [`normalization`] and [`batch`] turn them into tensors, on a
//! GPU where `resident` keeps all of them, [`loader`] decides in which order.
//!
//! This crate knows no model and no command line.

pub mod digest;
pub mod idx;
pub mod picture;
mod plane;
mod handwriting;
pub mod preparation;
pub mod source;
pub mod listing;
pub mod folder;
pub mod dataset;
pub mod info;
pub mod split;
pub mod augmentation;
pub mod normalization;
pub mod batch;
mod resident;
pub mod loader;

pub use augmentation::Augmentation;
pub use batch::{Batch, MnistBatcher, Sample};
pub use dataset::ImageDataset;
pub use folder::PictureFolder;
pub use info::DatasetInfo;
pub use loader::{Batches, Loader, Order};
pub use normalization::{Normalization, Scaling};
pub use picture::{Picture, PictureError};
pub use preparation::Preparation;
pub use source::{DataError, Splits};
pub use split::{SplitError, SplitMethod, train_validation_split};
