//! The data loaders of a run.

use std::slice;

use anyhow::Result;
use burn::tensor::Device;
use data::{ImageDataset, Loader, Mixing, MnistBatcher, Order};

use crate::config::run_config::{Config, Sampler, TrainingConfig};

/// Smallest number of images that batch normalization is computed over, if the data set permits: the
/// statistics of fewer images are too noisy to train on.
const MIN_NORMALIZED_IMAGES: usize = 8;

/// Returns a loader of shuffled, augmented training batches, which `devices` share. For a network with batch
/// normalization, a last batch that would leave a device fewer than [`MIN_NORMALIZED_IMAGES`] is merged into
/// the batch before it.
///
/// # Errors
/// Returns an error if an image cannot be read.
///
/// # Panics
/// Panics if there is no device.
pub(crate) fn training_loader(
    config: &Config,
    images: &ImageDataset,
    devices: &[Device],
) -> Result<Loader> {
    cached(uncached_training_loader(config, images, devices), devices)
}

/// Returns a loader as [`training_loader`] does, which copies no images to the devices.
///
/// # Panics
/// Panics if there is no device.
pub(crate) fn uncached_training_loader(
    config: &Config,
    images: &ImageDataset,
    devices: &[Device],
) -> Loader {
    let batcher = MnistBatcher {
        scaling: config.scaling(),
    };
    let TrainingConfig {
        seed, batch_size, ..
    } = config.training;
    let order = match config.data.sampler {
        Sampler::All => Order::Shuffled { seed },
        Sampler::Balanced => Order::Balanced { seed },
    };
    let loader = Loader::new(
        images.clone(),
        batcher,
        batch_size,
        order,
        devices[0].clone(),
    )
    .with_augmentation(config.augmentation, seed)
    .with_mixing(Mixing::of(&config.augmentation), seed);
    match config.model.has_batch_norm() {
        true => loader.with_min_last_batch(MIN_NORMALIZED_IMAGES * devices.len()),
        false => loader,
    }
}

/// Returns the number of optimizer steps of an epoch.
pub(crate) fn steps_per_epoch(config: &Config, train: &Loader) -> u64 {
    train.num_batches().div_ceil(config.training.accumulate) as u64
}

/// Returns a loader of batches for evaluation, in order.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn evaluation_loader(
    config: &Config,
    images: &ImageDataset,
    device: &Device,
) -> Result<Loader> {
    let batcher = MnistBatcher {
        scaling: config.scaling(),
    };
    let loader = Loader::new(
        images.clone(),
        batcher,
        config.training.eval_batch_size,
        Order::Sequential,
        device.clone(),
    );
    cached(loader, slice::from_ref(device))
}

/// Caches the images of a loader on the devices that are not CPUs.
fn cached(loader: Loader, devices: &[Device]) -> Result<Loader> {
    let devices = devices.iter().filter(|device| !kernels::is_cpu(device));
    Ok(loader.cached_on(&devices.cloned().collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::run::images;
    use crate::run::picture_cache::PictureCache;

    /// Returns the number of images of each part of each batch.
    fn sizes(images: usize, devices: usize, is_normalized: bool) -> Vec<Vec<usize>> {
        let mut settings = Settings::preset("tiny").unwrap();
        let table = format!(
            "data.limit_train = {images}\ndata.validation = 0.0\ntraining.batch_size = 32\n\
             model.blocks = [{{ channels = 2 }}, {{ channels = 2, norm = {is_normalized} }}]"
        );
        settings.overlay(table.parse().unwrap()).unwrap();
        let (config, images) = images::resolve(settings, PictureCache::No).unwrap();
        let devices = vec![Device::default(); devices];
        let loader = training_loader(&config, &images.split.train, &devices).unwrap();
        let mut batches = loader.batches(1);
        let mut sizes = Vec::new();
        while let Some(parts) = batches.next_shards(&devices) {
            let parts = parts.unwrap();
            sizes.push(parts.iter().map(|part| part.targets.dims()[0]).collect());
        }
        assert_eq!(sizes.len(), loader.num_batches());
        sizes
    }

    #[test]
    fn batch_norm_never_sees_fewer_than_8_images_of_several_batches() {
        assert_eq!(sizes(64, 1, true), [[32], [32]]);
        assert_eq!(sizes(65, 1, true), [[32], [33]]);
        assert_eq!(sizes(71, 1, true), [[32], [39]]);
        assert_eq!(sizes(72, 1, true), [vec![32], vec![32], vec![8]]);
        assert_eq!(sizes(79, 2, true), [[16, 16], [24, 23]]);
        assert_eq!(sizes(80, 2, true), [[16, 16], [16, 16], [8, 8]]);
        assert_eq!(sizes(3, 1, true), [[3]]);
        // Other networks keep all batches.
        assert_eq!(sizes(65, 1, false), [[32], [32], [1]]);
        assert_eq!(sizes(65, 2, false), [vec![16, 16], vec![16, 16], vec![1]]);
    }
}
