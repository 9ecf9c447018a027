//! Cross-validation: each image is predicted by a network that was not trained on it.

use std::slice;

use anyhow::{Context, Result, ensure};
use classifier::Probabilities;
use data::{ImageDataset, permutation};
use tracing::info;

use crate::config::run_config::Config;
use crate::device::OpenDevice;
use crate::inference::evaluation::for_each_batch;
use crate::process::interruption::Interrupted;
use crate::run::images::DataSplit;
use crate::run::loaders::evaluation_loader;
use crate::run::run_dir::RunDir;
use crate::training::progress::Style;
use crate::training::stop_reason::StopReason;
use crate::training::train::train;

/// Stream of the random numbers that divide the images.
const STREAM: u64 = u64::MAX - 1;

/// Divides the images into `folds` parts with the same fraction of each class, trains a network on the others of each part, and
/// returns the probabilities of all images in their order.
///
/// # Errors
/// Returns an error if there are too few images, a training fails, or the user interrupts it.
pub(crate) fn cross_validated(
    config: &Config,
    images: &ImageDataset,
    folds: usize,
    device: &OpenDevice,
) -> Result<Vec<Probabilities>> {
    ensure!(
        images.len() >= folds,
        "{} images cannot be divided into {folds} parts",
        images.len()
    );
    let parts = parts(images, folds, config.training.seed);
    let mut probabilities: Vec<Option<Probabilities>> = (0..images.len()).map(|_| None).collect();
    for part in 0..folds {
        info!("training {} of {folds}", part + 1);
        let inside = |is_inside: bool| {
            let indices = parts.iter().enumerate();
            indices
                .filter(move |(_, of)| (**of == part) == is_inside)
                .map(|(index, _)| index)
        };
        let held_out = images.select(inside(true));
        let split = DataSplit {
            train: images.select(inside(false)),
            validation: images.select([]),
            test: held_out.clone(),
        };
        let folder = tempfile::tempdir().context("a folder for the training")?;
        let run = RunDir::create(folder.path(), "part", None, "", |_| Ok(()))?;
        let trained = train(
            config,
            &split,
            slice::from_ref(device),
            &run,
            Style::Lines,
            None,
        )?;
        if trained.stop_reason == StopReason::Interrupted {
            return Err(Interrupted("stopped before all parts were predicted".into()).into());
        }
        let model = trained
            .model
            .context("the training ended before its first step")?;
        let loader = evaluation_loader(config, &held_out, &device.device)?;
        let mut indices = inside(true);
        for_each_batch(&loader, 1, |batch, _| {
            for predicted in Probabilities::from_logits(model.forward(batch.images))? {
                let index = indices.next().context("more predictions than images")?;
                probabilities[index] = Some(predicted);
            }
            Ok(())
        })?;
    }
    probabilities
        .into_iter()
        .collect::<Option<_>>()
        .context("an image was not predicted")
}

/// Returns the part of each image, at random, with the same fraction of each class in all parts.
fn parts(images: &ImageDataset, folds: usize, seed: u64) -> Vec<usize> {
    let mut seen = vec![0usize; 256];
    let mut parts = vec![0; images.len()];
    for index in permutation(images.len(), seed, STREAM) {
        let index = index as usize;
        let label = usize::from(images.label(index));
        // Classes begin with different parts, so that parts of small classes are of equal size.
        parts[index] = (seen[label] + label) % folds;
        seen[label] += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use data::Images;

    use super::*;

    #[test]
    fn parts_have_the_same_fraction_of_each_class() {
        let labels: Vec<u8> = (0..230).map(|at| u8::from(at >= 200)).collect();
        let pixels = vec![0; labels.len()];
        let images = Images {
            channels: 1,
            height: 1,
            width: 1,
            pixels,
        };
        let images = ImageDataset::new(images, labels).unwrap();
        let parts = parts(&images, 4, 1);
        for part in 0..4 {
            let count = |label: u8| {
                (0..230)
                    .filter(|&at| parts[at] == part && images.label(at) == label)
                    .count()
            };
            assert_eq!(count(0), 50);
            assert!((7..=8).contains(&count(1)));
        }
    }
}
