//! The data loaders of a run.

use std::slice;

use burn::tensor::Device;
use data::{ImageDataset, Loader, MnistBatcher, Order};

use crate::config::run_config::{Config, TrainingConfig};

/// Returns a loader of shuffled, augmented training batches.
///
/// # Panics
/// Panics if there is no device.
pub(crate) fn training_loader(
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
    let order = Order::Shuffled { seed };
    let loader = Loader::new(
        images.clone(),
        batcher,
        batch_size,
        order,
        devices[0].clone(),
    )
    .with_augmentation(config.augmentation, seed);
    cached(loader, devices)
}

/// Returns a loader of batches for evaluation, in order.
pub(crate) fn evaluation_loader(config: &Config, images: &ImageDataset, device: &Device) -> Loader {
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
fn cached(loader: Loader, devices: &[Device]) -> Loader {
    let devices = devices.iter().filter(|device| !kernels::is_cpu(device));
    loader.cached_on(&devices.cloned().collect::<Vec<_>>())
}
