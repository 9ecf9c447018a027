//! Evaluation and prediction with a trained network.

pub(crate) mod adversarial;
pub(crate) mod calibration;
pub(crate) mod classifier;
pub(crate) mod confidence;
pub(crate) mod evaluation;
pub(crate) mod labeled_prediction;
pub(crate) mod prediction;
pub(crate) mod robustness;
pub(crate) mod test_time_augmentation;
