//! Setting part of the training split aside for validation.

use serde::{Deserialize, Serialize};

use crate::dataset::ImageDataset;
use crate::loader::permutation;

/// Which images are set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitMethod {
    /// Drawn at random, by seed.
    Random,
    /// The last ones of the file, as Keras's `validation_split` does.
    Last,
}

/// A fraction that leaves no image to train on.
#[derive(Debug, thiserror::Error)]
#[error("validation {fraction} of {images} images leaves none to train on")]
pub struct SplitError {
    fraction: f64,
    images: usize,
}

/// Sets `fraction` of the images aside: `(train, validation)`.
///
/// The training part has `floor(len * (1 - fraction))` images, as in Keras; both parts keep the
/// order of the file. A fraction of 0 leaves validation empty.
///
/// # Errors
/// When no image is left to train on.
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
    let train = (images as f64 * (1.0 - fraction)) as usize;
    if train == 0 {
        return Err(SplitError { fraction, images });
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
    fn a_fraction_that_leaves_nothing_is_an_error() {
        let error = train_validation_split(&ramp(1), 0.5, SplitMethod::Last, 0);
        assert_eq!(
            error.unwrap_err().to_string(),
            "validation 0.5 of 1 images leaves none to train on"
        );
    }
}
