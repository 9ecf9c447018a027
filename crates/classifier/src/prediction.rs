//! The classes of one image by name.

use crate::confidence::{Assessment, Verdict};
use crate::probabilities::Probabilities;

/// The class probabilities of one image, with what decides on the verdict, if the network has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The probabilities.
    pub probabilities: Probabilities,
    /// Calibrated probability and distance from the training images.
    pub assessment: Option<Assessment>,
}

/// The class names of one image with their probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction<'a> {
    classes: &'a [String],
    answer: Answer,
}

impl<'a> Prediction<'a> {
    /// Pairs class names with their probabilities.
    pub(crate) fn new(classes: &'a [String], answer: Answer) -> Self {
        Self { classes, answer }
    }

    /// Returns the most likely class.
    pub fn class(&self) -> &'a str {
        &self.classes[self.answer.probabilities.best().0]
    }

    /// Returns the probability of the most likely class.
    pub fn probability(&self) -> f32 {
        self.answer.probabilities.best().1
    }

    /// Returns all classes with their probabilities, in descending order.
    pub fn ranked(&self) -> Vec<(&'a str, f32)> {
        let ranked = self.answer.probabilities.ranked().into_iter();
        ranked
            .map(|(class, probability)| (self.classes[class].as_str(), probability))
            .collect()
    }

    /// Returns the probabilities in the order of the classes.
    pub fn probabilities(&self) -> &Probabilities {
        &self.answer.probabilities
    }

    /// Returns the calibrated probability and the distance from the training images; `None` if the network has no
    /// [`Confidence`](crate::Confidence).
    pub fn assessment(&self) -> Option<Assessment> {
        self.answer.assessment
    }

    /// Returns whether the prediction can be trusted, with the smallest calibrated probability that counts as sure, such as
    /// [`MIN_PROBABILITY`](crate::MIN_PROBABILITY).
    pub fn verdict(&self, min_probability: f32) -> Option<Verdict> {
        let assessment = self.answer.assessment?;
        Some(assessment.verdict(min_probability))
    }
}
