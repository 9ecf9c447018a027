//! Setting part of the training split aside for validation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dataset::ImageDataset;
use crate::loader::permutation;

/// Which images are set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitMethod {
    /// Drawn at random, by seed.
    #[default]
    Random,
    /// The last ones of the file, as Keras's `validation_split` does.
    Last,
}

impl fmt::Display for SplitMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Last => "last",
        })
    }
}

impl FromStr for SplitMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            "last" => Ok(Self::Last),
            _ => Err("expected random or last".into()),
        }
    }
}

/// A fraction that leaves one side without an image.
#[derive(Debug, thiserror::Error)]
#[error("validation {fraction} of {images} images leaves none to {left_without}")]
pub struct SplitError {
    fraction: f64,
    images: usize,
    left_without: &'static str,
}

/// Sets `fraction` of the images aside: `(train, validation)`.
///
/// The training part has `floor(len * (1 - fraction))` images, as in Keras; both parts keep the
/// order of the file. A fraction of 0 leaves validation empty.
///
/// # Errors
/// When the fraction is above 0 but one part would be empty.
///
/// # Panics
/// When the fraction is not in `0.0..1.0`.
pub fn train_validation_split(
    dataset: &ImageDataset,
    fraction: f64,
    method: SplitMethod,
    seed: u64,
) -> Result<(ImageDataset, ImageDataset), SplitError> {
    assert!((0.0..1.0).contains(&fraction), "validation {fraction}");
    let images = dataset.len();
    // Rounded first: in binary, 60000 * (1 - 0.1) falls just short of 54000.
    let train = ((images as f64 * (1.0 - fraction) * 1e6).round() / 1e6) as usize;
    let left_without = match (train, images - train) {
        (0, _) => Some("train on"),
        (_, 0) if fraction > 0.0 => Some("validate on"),
        _ => None,
    };
    if let Some(left_without) = left_without {
        return Err(SplitError {
            fraction,
            images,
            left_without,
        });
    }
    let mut order: Vec<usize> = match method {
        SplitMethod::Last => (0..images).collect(),
        SplitMethod::Random => permutation(images, seed, 0)
            .into_iter()
            .map(|i| i as usize)
            .collect(),
    };
    order[..train].sort_unstable();
    order[train..].sort_unstable();
    let (train, validation) = order.split_at(train);
    Ok((
        dataset.select(train.iter().copied()),
        dataset.select(validation.iter().copied()),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dataset::tests::ramp;

    proptest! {
        #[test]
        fn every_image_lands_on_exactly_one_side(
            count in 2usize..300,
            fraction in 0.0f64..0.99,
            seed: u64,
            last: bool,
        ) {
            let method = if last { SplitMethod::Last } else { SplitMethod::Random };
            if let Ok((train, validation)) =
                train_validation_split(&ramp(count), fraction, method, seed)
            {
                let mut rows = [train.rows(), validation.rows()].concat();
                rows.sort_unstable();
                prop_assert_eq!(rows, (0..count as u32).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_sizes_are_those_of_keras() {
        for (fraction, expected) in [(0.1, 54), (0.2, 48), (0.3, 42), (0.0, 60)] {
            let (train, _) =
                train_validation_split(&ramp(60), fraction, SplitMethod::Last, 0).unwrap();
            assert_eq!(train.len(), expected, "validation {fraction}");
        }
    }

    #[test]
    fn last_takes_the_end_and_random_depends_on_the_seed() {
        let rows = |method, seed| {
            let (_, validation) = train_validation_split(&ramp(50), 0.2, method, seed).unwrap();
            validation.rows().to_vec()
        };
        assert_eq!(rows(SplitMethod::Last, 1), (40..50).collect::<Vec<_>>());
        assert_eq!(rows(SplitMethod::Random, 1), rows(SplitMethod::Random, 1));
        assert_ne!(rows(SplitMethod::Random, 1), rows(SplitMethod::Random, 2));
    }

    #[test]
    fn a_fraction_too_small_for_one_image_is_an_error() {
        let error = train_validation_split(&ramp(5), 0.000_000_01, SplitMethod::Last, 0);
        assert_eq!(
            error.unwrap_err().to_string(),
            "validation 0.00000001 of 5 images leaves none to validate on"
        );
    }
}
