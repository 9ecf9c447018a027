//! Evaluation, prediction and explanation with a trained network.

pub(crate) mod adversarial;
pub(crate) mod calibration;
pub(crate) mod chosen_image;
pub(crate) mod classifier;
pub(crate) mod confidence;
pub(crate) mod embedding;
pub(crate) mod evaluation;
pub(crate) mod explanation;
pub(crate) mod heat_map;
pub(crate) mod labeled_prediction;
pub(crate) mod nearest_images;
pub(crate) mod prediction;
mod principal_components;
pub(crate) mod reading;
pub(crate) mod robustness;
pub(crate) mod test_time_augmentation;
mod tsne;
