//! The images of the test split with their predictions.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::ImageDataset;
use serde::Serialize;

use crate::inference::classifier::Classifier;
use crate::inference::labeled_prediction::{LabeledPrediction, mistakes, predict_dataset};
use crate::run::images;
use crate::run::run_dir::RunDir;

/// An image of the test split with its prediction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// The index in the test split.
    index: usize,
    /// The true class.
    class: String,
    predicted: String,
    /// The probability of the predicted class.
    probability: f32,
    /// `[channels, height, width]` from 0 to 255, in base64.
    pixels: String,
}

/// The images of the test split with their predictions.
#[derive(Debug)]
pub(crate) struct TestImages {
    images: ImageDataset,
    classes: Vec<String>,
    predictions: Vec<LabeledPrediction>,
    /// The indices of misclassified images, by decreasing loss.
    pub(crate) mistakes: Vec<usize>,
}

impl TestImages {
    /// Classifies the test split of a run.
    ///
    /// # Errors
    /// Returns an error if the images cannot be read or the device fails.
    pub(crate) fn predict(run: &RunDir, classifier: &Classifier) -> Result<Self> {
        let images = images::load_test(run, &classifier.config)?;
        let (_, predictions) = predict_dataset(classifier, &images)?;
        let mistakes = mistakes(&predictions).into_iter();
        Ok(Self {
            images,
            classes: classifier.classes().to_vec(),
            mistakes: mistakes.map(|prediction| prediction.index).collect(),
            predictions,
        })
    }

    /// Returns the number of images.
    pub(crate) fn len(&self) -> usize {
        self.predictions.len()
    }

    /// Returns image `index` with its prediction.
    ///
    /// # Errors
    /// Returns an error if the image cannot be read.
    ///
    /// # Panics
    /// Panics if there is no image `index`.
    pub(crate) fn sample(&self, index: usize) -> Result<Sample> {
        let prediction = &self.predictions[index];
        let (predicted, probability) = prediction.probabilities.best();
        Ok(Sample {
            index,
            class: self.classes[prediction.label].clone(),
            predicted: self.classes[predicted].clone(),
            probability,
            pixels: STANDARD.encode(self.images.pixels(index)?),
        })
    }
}
