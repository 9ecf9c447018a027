//! The images of the test split with their predictions.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    pub(crate) samples: Vec<Sample>,
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
        let classes = classifier.classes();
        let sample = |prediction: &LabeledPrediction| {
            let (predicted, probability) = prediction.probabilities.best();
            Sample {
                index: prediction.index,
                class: classes[prediction.label].clone(),
                predicted: classes[predicted].clone(),
                probability,
                pixels: STANDARD.encode(images.pixels(prediction.index)),
            }
        };
        let mistakes = mistakes(&predictions);
        Ok(Self {
            samples: predictions.iter().map(sample).collect(),
            mistakes: mistakes
                .into_iter()
                .map(|prediction| prediction.index)
                .collect(),
        })
    }
}
