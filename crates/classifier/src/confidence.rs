//! Verdicts: whether a prediction can be trusted.
//!
//! Two numbers decide. The *calibrated* probability is that of the network after temperature scaling (Guo et al., "On
//! Calibration of Modern Neural Networks", 2017): of the images with 90%, nine in ten are classified correctly. The *distance*
//! tells how unlike the training images of the predicted class an image is. It is measured in the features that the network
//! computes before its dense layers, scaled to length 1: their distance from the subspace of the class, which the mean and the
//! principal components of its training images span. (A class as a subspace: Watanabe 1969, Wold 1976; for networks, the residual in
//! Wang et al., "ViM", 2022.) It is divided by its 99th percentile on validation images.

use std::collections::HashMap;
use std::fmt;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::error::ConfidenceError;
use crate::probabilities::Probabilities;
use crate::vectors::{dot, normalize};

/// Whether a prediction can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The image is like the training images of the class, and the class is the likeliest by far.
    Sure,
    /// The image is like the training images, but no class is likely enough.
    Unsure,
    /// The image is unlike the training images of the class, so that it may show something else.
    Unlike,
}

/// What decides on the verdict of a prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assessment {
    /// Probability of the predicted class after temperature scaling.
    pub calibrated: f32,
    /// Distance from the training images of the predicted class; 99 of 100 images of such classes have less than 1.
    pub distance: f32,
}

/// Smallest calibrated probability of a sure prediction, unless another one is asked for.
pub const MIN_PROBABILITY: f32 = 0.5;

/// The calibration of a network, and its features of training images. [`fit`](crate::fit()) measures them.
#[derive(Clone, Debug, PartialEq)]
pub struct Confidence {
    /// Divisor of the logits.
    pub temperature: f32,
    /// Whether the constants follow from images that the network was not trained on; else they are less reliable.
    pub is_validated: bool,
    /// The distance that 99 of 100 images do not exceed, before the division by it.
    pub(crate) limit: f32,
    /// In the order of the classes.
    pub(crate) subspaces: Vec<Subspace>,
}

/// The mean features of a class, and orthonormal directions in which they vary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subspace {
    pub(crate) mean: Vec<f32>,
    pub(crate) directions: Vec<Vec<f32>>,
}

impl Verdict {
    /// Returns the name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sure => "sure",
            Self::Unsure => "unsure",
            Self::Unlike => "unlike",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unlike => "unlike the training images",
            verdict => verdict.name(),
        })
    }
}

impl Assessment {
    /// Returns the verdict, with the smallest calibrated probability that counts as sure.
    pub fn verdict(&self, min_probability: f32) -> Verdict {
        // Features that are NaN give a distance that is NaN.
        if self.distance.is_nan() || self.distance > 1.0 {
            Verdict::Unlike
        } else if self.calibrated < min_probability {
            Verdict::Unsure
        } else {
            Verdict::Sure
        }
    }
}

impl Confidence {
    /// Assesses the prediction for an image with these features.
    ///
    /// # Panics
    /// Panics if the number of probabilities or of features differs from that of the network.
    pub fn assess(&self, probabilities: &Probabilities, features: &[f32]) -> Assessment {
        let (class, _) = probabilities.best();
        Assessment {
            calibrated: probabilities.calibrated(self.temperature),
            distance: self.subspaces[class].distance(features) / self.limit,
        }
    }

    /// Number of classes and of features.
    pub(crate) fn shape(&self) -> [usize; 2] {
        let features = self.subspaces.first().map_or(0, |class| class.mean.len());
        [self.subspaces.len(), features]
    }

    /// Returns the file: `means` `[classes, features]` and `directions` `[classes, count, features]` in 16 bits, the constants, and
    /// the digest of the weights that it belongs to.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn to_bytes(&self, weights: &str) -> Result<Vec<u8>, ConfidenceError> {
        let [classes, features] = self.shape();
        let count = self.directions();
        let half = |values: &mut dyn Iterator<Item = &f32>| -> Vec<u8> {
            values
                .flat_map(|value| f16::from_f32(*value).to_le_bytes())
                .collect()
        };
        let means = half(&mut self.subspaces.iter().flat_map(|class| &class.mean));
        let directions = half(
            &mut self
                .subspaces
                .iter()
                .flat_map(|class| class.directions.iter().flatten()),
        );
        let is_validated = f32::from(u8::from(self.is_validated));
        let constants: Vec<u8> = [self.temperature, self.limit, is_validated]
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect();
        let view = |shape, data| TensorView::new(Dtype::F16, shape, data);
        let tensors = [
            ("means", view(vec![classes, features], &means)?),
            (
                "directions",
                view(vec![classes, count, features], &directions)?,
            ),
            (
                "constants",
                TensorView::new(Dtype::F32, vec![3], &constants)?,
            ),
        ];
        // Several entries would be in another order each time.
        let metadata = HashMap::from([("weights".to_string(), weights.to_string())]);
        Ok(serialize(tensors, Some(metadata))?)
    }

    /// Reads the file; `None` if it belongs to other weights.
    ///
    /// # Errors
    /// Returns an error if the file is damaged.
    pub fn from_bytes(bytes: &[u8], weights: &str) -> Result<Option<Self>, ConfidenceError> {
        use ConfidenceError::Invalid;
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().as_ref().ok_or(Invalid("metadata"))?;
        if metadata
            .get("weights")
            .ok_or(Invalid("digest of the weights"))?
            != weights
        {
            return Ok(None);
        }
        let tensors = SafeTensors::deserialize(bytes)?;
        let constants = tensors.tensor("constants")?;
        let (numbers, _) = constants.data().as_chunks();
        let numbers: Vec<f32> = numbers
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        let is_positive = |number: f32| number.is_finite() && number > 0.0;
        let (temperature, limit, is_validated) = match numbers.as_slice() {
            &[temperature, limit, is_validated]
                if constants.dtype() == Dtype::F32
                    && is_positive(temperature)
                    && is_positive(limit) =>
            {
                (temperature, limit, is_validated == 1.0)
            }
            _ => return Err(Invalid("constants")),
        };
        let values = |name: &'static str| -> Result<(Vec<usize>, Vec<f32>), ConfidenceError> {
            let tensor = tensors.tensor(name)?;
            if tensor.dtype() != Dtype::F16 {
                return Err(Invalid(name));
            }
            let values = tensor.data().as_chunks().0.iter();
            let values: Vec<f32> = values
                .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
                .collect();
            match values.iter().all(|value| value.is_finite()) {
                true => Ok((tensor.shape().to_vec(), values)),
                false => Err(Invalid(name)),
            }
        };
        let (shape, means) = values("means")?;
        let (classes, features) = match *shape.as_slice() {
            [classes, features] if features > 0 => (classes, features),
            _ => return Err(Invalid("means")),
        };
        let (shape, directions) = values("directions")?;
        let count = match *shape.as_slice() {
            [same, count, size] if same == classes && size == features => count,
            _ => return Err(Invalid("directions")),
        };
        let subspaces = means
            .chunks_exact(features)
            .enumerate()
            .map(|(class, mean)| {
                let directions = &directions[class * count * features..][..count * features];
                Subspace {
                    mean: mean.to_vec(),
                    directions: directions
                        .chunks_exact(features)
                        .map(<[f32]>::to_vec)
                        .collect(),
                }
            });
        Ok(Some(Self {
            temperature,
            is_validated,
            limit,
            subspaces: subspaces.collect(),
        }))
    }

    /// Number of directions of each class.
    fn directions(&self) -> usize {
        self.subspaces
            .first()
            .map_or(0, |class| class.directions.len())
    }
}

impl Subspace {
    /// Returns the distance of features, scaled to length 1, from the subspace.
    pub(crate) fn distance(&self, features: &[f32]) -> f32 {
        assert_eq!(features.len(), self.mean.len(), "number of features");
        let mut features = features.to_vec();
        normalize(&mut features);
        for (feature, mean) in features.iter_mut().zip(&self.mean) {
            *feature -= mean;
        }
        let within: f32 = self
            .directions
            .iter()
            .map(|direction| dot(direction, &features).powi(2))
            .sum();
        (dot(&features, &features) - within).max(0.0).sqrt()
    }
}
