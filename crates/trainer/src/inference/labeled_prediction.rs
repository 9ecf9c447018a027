//! Predictions for labeled images.

use anyhow::Result;
use data::ImageDataset;
use serde::Serialize;

use crate::inference::classifier::{Classifier, Probabilities};
use crate::inference::evaluation::Evaluation;

/// The prediction for one image of a data set, with its label.
#[derive(Clone, Debug)]
pub(crate) struct LabeledPrediction {
    /// Index of the image in its data set.
    pub(crate) index: usize,
    /// Index of the true class.
    pub(crate) label: usize,
    pub(crate) probabilities: Probabilities,
}

impl LabeledPrediction {
    /// Returns whether the most likely class is the label.
    pub(crate) fn is_correct(&self) -> bool {
        self.probabilities.best().0 == self.label
    }

    /// Returns the cross-entropy.
    pub(crate) fn loss(&self) -> f32 {
        self.probabilities.loss(self.label)
    }
}

/// Evaluates a network on a data set, and returns the prediction for each image, in order.
///
/// # Errors
/// Returns an error if there are no images, the loss is not finite, or the device fails.
pub(crate) fn predict_dataset(
    classifier: &Classifier,
    images: &ImageDataset,
) -> Result<(Evaluation, Vec<LabeledPrediction>)> {
    let mut predictions = Vec::with_capacity(images.len());
    let evaluation = classifier.evaluate(images, |batch| {
        predictions.extend(Probabilities::from_logits(batch.logits)?);
        Ok(())
    })?;
    Ok((evaluation, labeled(predictions, images)))
}

/// Labels the predictions for all images of a data set.
pub(crate) fn labeled(
    predictions: Vec<Probabilities>,
    images: &ImageDataset,
) -> Vec<LabeledPrediction> {
    let labels = images.labels().zip(predictions).enumerate();
    let prediction =
        |(index, (label, probabilities)): (usize, (u8, Probabilities))| LabeledPrediction {
            index,
            label: label.into(),
            probabilities,
        };
    labels.map(prediction).collect()
}

/// A misclassified image, as a row of a table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mistake {
    /// Index in the split.
    pub(crate) index: usize,
    /// The file of a picture, relative to the data folder.
    pub(crate) path: Option<String>,
    pub(crate) class: String,
    pub(crate) predicted: String,
    pub(crate) probability: f32,
    pub(crate) probability_of_class: f32,
}

/// Describes wrong predictions.
pub(crate) fn mistake_rows(
    mistakes: &[&LabeledPrediction],
    images: &ImageDataset,
    classes: &[String],
) -> Vec<Mistake> {
    let files: Option<Vec<&str>> = images
        .files()
        .map(|files| files.map(|file| file.path.as_str()).collect());
    let row = |mistake: &&LabeledPrediction| {
        let (predicted, probability) = mistake.probabilities.best();
        Mistake {
            index: mistake.index,
            path: files.as_ref().map(|files| files[mistake.index].to_string()),
            class: classes[mistake.label].clone(),
            predicted: classes[predicted].clone(),
            probability,
            probability_of_class: mistake.probabilities.as_slice()[mistake.label],
        }
    };
    mistakes.iter().map(row).collect()
}

/// Returns the wrong predictions, those with the highest loss first.
pub(crate) fn mistakes(predictions: &[LabeledPrediction]) -> Vec<&LabeledPrediction> {
    let is_wrong = |prediction: &&LabeledPrediction| !prediction.is_correct();
    let mut mistakes: Vec<&LabeledPrediction> = predictions.iter().filter(is_wrong).collect();
    mistakes.sort_by(|a, b| b.loss().total_cmp(&a.loss()));
    mistakes
}
