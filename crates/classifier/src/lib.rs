//! A trained network, ready to classify pictures.
//!
//! A [`Classifier`] is opened from a run folder of the program `trainer`, from a [`pretrained`] network
//! that is embedded in the library, or from weights and their [`Description`]. It prepares pictures as
//! the network's training images were prepared, and returns the same probabilities as `trainer predict`, up
//! to rounding.
//!
//! ```
//! use classifier::{Classifier, Device};
//!
//! let classifier = Classifier::pretrained("pretrained-best", &Device::default())?;
//! let picture = std::fs::read("../../tests/handwriting/7-marker.png")?;
//! let prediction = classifier.classify_picture(&picture)?;
//! assert_eq!(prediction.class(), "7");
//! assert!(prediction.probability() > 0.9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A *picture* is a PNG, JPEG, TIFF, WebP or similar file of any size; an *image* is an input of the network:
//! `[channels, height, width]`, one byte per value.
//!
//! The feature `pretrained` embeds the pretrained networks. The features `flex` and `ndarray` enable CPU
//! backends; other backends are features of the crate `burn`.
//!
//! This crate knows no training and no command line.

mod files;
mod error;
mod description;
#[cfg(feature = "pretrained")]
pub mod pretrained;
mod probabilities;
mod vectors;
mod confidence;
mod fit;
mod prediction;
mod classifier;
mod reading;

pub use crate::classifier::{Classifier, last_hidden_outputs, outputs};
pub use confidence::{Assessment, Confidence, MIN_PROBABILITY, Verdict};
pub use description::Description;
pub use error::{ConfidenceError, Error};
pub use files::{
    CONFIDENCE_FILE, CONFIG_FILE, MAX_CONFIDENCE_BYTES, MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES,
    WEIGHTS_FILE,
};
pub use fit::{Held, IMAGES_PER_CLASS, Observation, fit};
pub use prediction::{Answer, Prediction};
pub use probabilities::Probabilities;
pub use reading::{Character, Reading};
pub use vectors::{covariance_product, dot, orthonormal};

pub use burn::tensor::Device;
pub use data::{DatasetInfo, Normalization, Page, PerChannel, Picture, PictureError, Preparation};
pub use model::{ConvNet, ConvNetConfig};
