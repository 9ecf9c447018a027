//! A dataset as published: a training split, a test split and their description.

use crate::image_dataset::ImageDataset;
use crate::info::DatasetInfo;
use crate::picture_store::PixelError;

/// A dataset as published: a training split, a test split and their description.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Name, classes and statistics. They hold for both splits.
    pub info: DatasetInfo,
    /// Training images.
    pub train: ImageDataset,
    /// The data set's own validation images, to choose the best epoch by, if it has them.
    pub validation: Option<ImageDataset>,
    /// Test images. Neither training nor model selection may use them.
    pub test: ImageDataset,
    /// One message for each picture that could not be read and was left out.
    pub unreadable: Vec<String>,
}

impl Dataset {
    /// Returns the images in gray (1 channel) or RGB (3 channels), with their statistics.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub fn with_channels(self, channels: usize) -> Result<Self, PixelError> {
        let train = self.train.with_channels(channels);
        Ok(Self {
            info: self.info.with_channels(channels, &train)?,
            train,
            validation: self.validation.map(|images| images.with_channels(channels)),
            test: self.test.with_channels(channels),
            unreadable: self.unreadable,
        })
    }
}
