//! An image that the user names.

use anyhow::{Context, Result, ensure};
use data::ImageDataset;

use crate::inference::classifier::{Classifier, open_picture};

/// An image of the test split, or a picture as the network sees it.
#[derive(Clone, Debug)]
pub(crate) struct ChosenImage {
    /// `[channels, height, width]`.
    pub(crate) pixels: Vec<u8>,
    /// Index of the class, if it is known.
    pub(crate) label: Option<usize>,
}

impl ChosenImage {
    /// Opens the image `name`: an index in the test split, which `test` reads, or a picture file, prepared as the training
    /// images were or, if `raw`, only scaled.
    ///
    /// # Errors
    /// Returns an error if there is no such image, or it cannot be used.
    pub(crate) fn open(
        name: &str,
        raw: bool,
        classifier: &Classifier,
        test: impl FnOnce() -> Result<ImageDataset>,
    ) -> Result<Self> {
        let Ok(index) = name.parse::<usize>() else {
            let pixels = open_picture(name.as_ref())
                .and_then(|picture| classifier.prepared(&picture, raw))
                .with_context(|| name.to_string())?;
            return Ok(Self {
                pixels,
                label: None,
            });
        };
        let test = test()?;
        ensure!(
            index < test.len(),
            "test image {index}: the test split has images 0 to {}",
            test.len() - 1
        );
        Ok(Self {
            pixels: test.pixels(index)?.into_owned(),
            label: Some(test.label(index).into()),
        })
    }
}
