//! A dataset as published: a training split, a test split and their description.

use crate::image_dataset::ImageDataset;
use crate::info::DatasetInfo;

/// A dataset as published: a training split, a test split and their description.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Name, classes and statistics. They hold for both splits.
    pub info: DatasetInfo,
    /// Training images.
    pub train: ImageDataset,
    /// Test images. Neither training nor model selection may use them.
    pub test: ImageDataset,
    /// One message for each picture that could not be read and was left out.
    pub unreadable: Vec<String>,
}
