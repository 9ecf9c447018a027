//! The loaders of a run: its images, as batches.

use std::slice;

use burn::tensor::Device;
use data::{ImageDataset, Loader, MnistBatcher, Order};

use crate::config::run_config::{Config, TrainingConfig};

/// Batches to learn from, shuffled and changed as the settings say.
///
/// # Panics
/// When there is no device.
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
    kept(loader, devices)
}

/// Batches in order, for judging, on the device without gradients.
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
    kept(loader, slice::from_ref(device))
}

/// The same, with its images on those devices that are no CPUs.
fn kept(loader: Loader, devices: &[Device]) -> Loader {
    let devices = devices.iter().filter(|device| !kernels::is_cpu(device));
    loader.cached_on(&devices.cloned().collect::<Vec<_>>())
}
