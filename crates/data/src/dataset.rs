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
    /// Warnings about data that are not used.
    pub notes: Vec<String>,
    /// Whether the test images are a split of the data set. Otherwise they were chosen from the training images.
    pub has_test_split: bool,
    /// Whether the validation split is stratified by default. That of IDX files is random, as in published results.
    pub is_stratified: bool,
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
            notes: self.notes,
            has_test_split: self.has_test_split,
            is_stratified: self.is_stratified,
        })
    }

    /// Returns the images scaled to a height and width, with their statistics. Pictures have the size that they were decoded
    /// to.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub fn resized(self, size: [usize; 2]) -> Result<Self, PixelError> {
        if [self.info.height, self.info.width] == size {
            return Ok(self);
        }
        let train = self.train.resized(size)?;
        Ok(Self {
            info: self.info.resized(&train)?,
            train,
            validation: self
                .validation
                .map(|images| images.resized(size))
                .transpose()?,
            test: self.test.resized(size)?,
            ..self
        })
    }

    /// Returns the test images to evaluate another network on: all images if the data set has no test split.
    pub fn into_test_images(self) -> ImageDataset {
        match self.has_test_split {
            true => self.test,
            // Both are views of the same images.
            false => self.train.joined(&self.test).unwrap_or(self.test),
        }
    }
}
