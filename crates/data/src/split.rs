//! Splitting images into a training and a validation set.

use serde::{Deserialize, Serialize};

use crate::image_dataset::ImageDataset;
use crate::shuffle::permutation;

/// The choice of validation images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitMethod {
    /// A random subset that depends on a seed.
    Random,
    /// The last images, as `validation_split` of Keras.
    Last,
    /// A random subset with the same fraction of each class.
    Stratified,
}

/// The validation fraction leaves no image for training.
#[derive(Debug, thiserror::Error)]
#[error("validation fraction {fraction} of {images} images leaves none for training")]
pub struct SplitError {
    fraction: f64,
    images: usize,
}

/// Splits a dataset into `(train, validation)`, where `fraction` is the validation part.
///
/// The training part has `floor(len * (1 - fraction))` images, as in Keras. Both parts preserve the
/// order of the dataset. With a fraction of 0, the validation part is empty.
///
/// # Errors
/// Returns an error if no image is left for training.
///
/// # Panics
/// Panics if `fraction` is not in `0.0..1.0`.
pub fn train_validation_split(
    dataset: &ImageDataset,
    fraction: f64,
    method: SplitMethod,
    seed: u64,
) -> Result<(ImageDataset, ImageDataset), SplitError> {
    assert!(
        (0.0..1.0).contains(&fraction),
        "validation fraction {fraction}"
    );
    let images = dataset.len();
    let train = (images as f64 * (1.0 - fraction)) as usize;
    if train == 0 {
        return Err(SplitError { fraction, images });
    }
    let mut order: Vec<usize> = match method {
        SplitMethod::Last => (0..images).collect(),
        SplitMethod::Random | SplitMethod::Stratified => permutation(images, seed, 0)
            .into_iter()
            .map(|i| i as usize)
            .collect(),
    };
    if method == SplitMethod::Stratified {
        order = stratified(dataset, order);
    }
    order[..train].sort_unstable();
    order[train..].sort_unstable();
    let (train, validation) = order.split_at(train);
    Ok((
        dataset.select(train.iter().copied()),
        dataset.select(validation.iter().copied()),
    ))
}

/// Reorders images so that each beginning has the same fraction of each class. Of equal positions within their classes, the
/// order given counts.
fn stratified(dataset: &ImageDataset, order: Vec<usize>) -> Vec<usize> {
    let mut sizes = [0usize; 256];
    for label in dataset.labels() {
        sizes[usize::from(label)] += 1;
    }
    let mut seen = [0usize; 256];
    let mut ranked: Vec<(f64, usize)> = order
        .into_iter()
        .map(|index| {
            let label = usize::from(dataset.label(index));
            seen[label] += 1;
            // The middle of the image's share of its class.
            ((seen[label] as f64 - 0.5) / sizes[label] as f64, index)
        })
        .collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    // A class with a single image keeps it for training.
    let (mut first, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for (_, index) in ranked {
        match sizes[usize::from(dataset.label(index))] == 1 {
            true => first.push(index),
            false => last.push(index),
        }
    }
    first.extend(last);
    first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image_dataset::tests::ramp;

    proptest! {
        #[test]
        fn parts_are_a_partition(
            count in 2usize..300,
            fraction in 0.0f64..0.99,
            seed: u64,
            method in prop_oneof![
                Just(SplitMethod::Last),
                Just(SplitMethod::Random),
                Just(SplitMethod::Stratified),
            ],
        ) {
            if let Ok((train, validation)) =
                train_validation_split(&ramp(count), fraction, method, seed)
            {
                let mut indices = [train.indices(), validation.indices()].concat();
                indices.sort_unstable();
                prop_assert_eq!(indices, (0..count as u32).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn sizes_match_keras() {
        for (fraction, expected) in [(0.1, 54), (0.2, 48), (0.3, 42), (0.0, 60)] {
            let (train, _) =
                train_validation_split(&ramp(60), fraction, SplitMethod::Last, 0).unwrap();
            assert_eq!(train.len(), expected, "validation fraction {fraction}");
        }
    }

    #[test]
    fn last_takes_the_end_and_random_depends_on_seed() {
        let indices = |method, seed| {
            let (_, validation) = train_validation_split(&ramp(50), 0.2, method, seed).unwrap();
            validation.indices().to_vec()
        };
        assert_eq!(indices(SplitMethod::Last, 1), (40..50).collect::<Vec<_>>());
        let random = indices(SplitMethod::Random, 1);
        assert_eq!(indices(SplitMethod::Random, 1), random);
        assert_ne!(indices(SplitMethod::Random, 2), random);
    }

    #[test]
    fn stratified_takes_the_same_fraction_of_each_class() {
        // 190 images of class 0, 8 of class 1 and a single one of class 2.
        let labels: Vec<u8> = (0..199)
            .map(|at| if at < 190 { 0 } else { u8::from(at >= 198) + 1 })
            .collect();
        let images = ramp(199).relabeled_each(labels);
        for seed in 0..5 {
            let (train, validation) =
                train_validation_split(&images, 0.25, SplitMethod::Stratified, seed).unwrap();
            let count = |images: &ImageDataset, class| {
                images.labels().filter(|label| *label == class).count()
            };
            assert_eq!(count(&validation, 1), 2, "{seed}");
            assert!(
                (47..=49).contains(&count(&validation, 0)),
                "{}",
                count(&validation, 0)
            );
            assert_eq!(count(&train, 2), 1);
        }
    }

    #[test]
    fn rejects_fraction_without_training_images() {
        let error = train_validation_split(&ramp(1), 0.5, SplitMethod::Last, 0);
        assert_eq!(
            error.unwrap_err().to_string(),
            "validation fraction 0.5 of 1 images leaves none for training"
        );
    }
}
