//! Evaluation and prediction with a trained network.

pub(crate) mod calibration;
pub(crate) mod classifier;
pub(crate) mod confidence;
pub(crate) mod embedding;
pub(crate) mod evaluation;
pub(crate) mod labeled_prediction;
pub(crate) mod prediction;
mod principal_components;
pub(crate) mod test_time_augmentation;
mod tsne;
