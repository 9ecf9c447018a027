//! The classes of one image by name.

use crate::probabilities::Probabilities;

/// The class names of one image with their probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction<'a> {
    classes: &'a [String],
    probabilities: Probabilities,
}

impl<'a> Prediction<'a> {
    /// Pairs class names with their probabilities.
    pub(crate) fn new(classes: &'a [String], probabilities: Probabilities) -> Self {
        Self {
            classes,
            probabilities,
        }
    }

    /// Returns the most likely class.
    pub fn class(&self) -> &'a str {
        &self.classes[self.probabilities.best().0]
    }

    /// Returns the probability of the most likely class.
    pub fn probability(&self) -> f32 {
        self.probabilities.best().1
    }

    /// Returns all classes with their probabilities, in descending order.
    pub fn ranked(&self) -> Vec<(&'a str, f32)> {
        let ranked = self.probabilities.ranked().into_iter();
        ranked
            .map(|(class, probability)| (self.classes[class].as_str(), probability))
            .collect()
    }

    /// Returns the probabilities in the order of the classes.
    pub fn probabilities(&self) -> &Probabilities {
        &self.probabilities
    }
}
