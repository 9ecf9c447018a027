//! Loading of batches: their order, their size and their devices.

use std::collections::BTreeMap;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use rayon::prelude::*;

use crate::augmentation::{Augmentation, Transform};
use crate::batch::{Batch, MnistBatcher};
use crate::device_cache::DeviceCache;
use crate::image_dataset::ImageDataset;
use crate::mixing::{Mixing, Mixture};
use crate::picture_store::PixelError;
use crate::shuffle::permutation;

/// The order of the images in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The order of the dataset.
    Sequential,
    /// A random order that depends only on the seed and the epoch.
    Shuffled {
        /// Seed of the order.
        seed: u64,
    },
    /// A random order of equally many images of each class, drawn anew in each epoch: images of rare classes occur several
    /// times, and some of frequent classes not at all.
    Balanced {
        /// Seed of the order.
        seed: u64,
    },
}

/// Loads the batches of a dataset onto a device.
///
/// Batches are assembled on the calling thread. This takes a small part of a training step, and
/// makes their order reproducible.
#[derive(Clone, Debug)]
pub struct Loader {
    dataset: ImageDataset,
    batcher: MnistBatcher,
    batch_size: usize,
    /// Smallest last batch that is not merged into the batch before it.
    min_last_batch: usize,
    order: Order,
    augmentation: Option<(Augmentation, u64)>,
    mixing: Option<(Mixing, u64)>,
    device: Device,
    caches: Vec<DeviceCache>,
}

impl Loader {
    /// Creates a loader of batches of `batch_size` images. The last batch may be smaller.
    ///
    /// # Panics
    /// Panics if `batch_size` is 0.
    pub fn new(
        dataset: ImageDataset,
        batcher: MnistBatcher,
        batch_size: usize,
        order: Order,
        device: Device,
    ) -> Self {
        assert!(batch_size > 0, "batch size 0");
        Self {
            dataset,
            batcher,
            batch_size,
            min_last_batch: 1,
            order,
            augmentation: None,
            mixing: None,
            device,
            caches: Vec::new(),
        }
    }

    /// Merges a last batch of fewer than `images` into the batch before it, if there is one.
    ///
    /// Batch normalization over a few images differs much from that over a whole batch.
    pub fn with_min_last_batch(self, images: usize) -> Self {
        Self {
            min_last_batch: images,
            ..self
        }
    }

    /// Transforms single images at random. `seed` determines the transforms. Cutout fills with the pixel
    /// value that is 0 after normalization.
    pub fn with_augmentation(self, augmentation: Augmentation, seed: u64) -> Self {
        let augmentation = (!augmentation.is_identity()).then_some((augmentation, seed));
        Self {
            augmentation,
            ..self
        }
    }

    /// Mixes the images of each batch. `seed` determines the mixtures.
    pub fn with_mixing(self, mixing: Option<Mixing>, seed: u64) -> Self {
        let mixing = mixing.map(|mixing| (mixing, seed));
        Self { mixing, ..self }
    }

    /// Copies the dataset to these devices, which then gather and augment their batches themselves.
    ///
    /// A dataset of more than 512 MiB is not copied; its batches are assembled on the host.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub fn cached_on(self, devices: &[Device]) -> Result<Self, PixelError> {
        let unique = devices.iter().enumerate();
        let unique = unique.filter(|(at, device)| !devices[..*at].contains(device));
        let caches =
            unique.filter_map(|(_, device)| DeviceCache::new(device, &self.dataset).transpose());
        Ok(Self {
            caches: caches.collect::<Result<_, _>>()?,
            ..self
        })
    }

    /// Returns the number of batches in an epoch.
    pub fn num_batches(&self) -> usize {
        let images = self.dataset.len();
        let (full, rest) = (images / self.batch_size, images % self.batch_size);
        let is_merged = full > 0 && rest < self.min_last_batch;
        full + usize::from(rest > 0 && !is_merged)
    }

    /// Returns the number of images in the first `batches` of an epoch.
    fn images_in(&self, batches: usize) -> usize {
        match batches < self.num_batches() {
            true => batches * self.batch_size,
            false => self.dataset.len(),
        }
    }

    /// Iterates over the batches of epoch `epoch`, counted from 1.
    pub fn batches(&self, epoch: u64) -> Batches<'_> {
        self.batches_from(epoch, 0)
    }

    /// Iterates over the batches of epoch `epoch` without the first `skipped`.
    pub fn batches_from(&self, epoch: u64, skipped: usize) -> Batches<'_> {
        let count = self.dataset.len();
        let order = match self.order {
            Order::Sequential => (0..count as u32).collect(),
            Order::Shuffled { seed } => permutation(count, seed, epoch),
            Order::Balanced { seed } => balanced(&self.dataset, seed, epoch),
        };
        Batches {
            loader: self,
            epoch,
            order,
            number: skipped,
        }
    }

    /// Returns the height and the width of the images.
    fn size(&self) -> [usize; 2] {
        [self.dataset.height(), self.dataset.width()]
    }

    /// Draws the mixture of batch `number` of `count` images.
    fn mixture(&self, count: usize, epoch: u64, number: usize) -> Option<Mixture> {
        let (mixing, seed) = self.mixing?;
        let size = self.size();
        Some(Mixture::draw(&mixing, count, size, seed, epoch, number))
    }

    /// Assembles the part `range` of the batch of the images at `indices`, with their partners in the mixture.
    fn part(
        &self,
        indices: &[u32],
        range: Range<usize>,
        mixture: Option<&Mixture>,
        epoch: u64,
        device: &Device,
    ) -> Result<Batch, PixelError> {
        let Some(mixture) = mixture else {
            return self.batch(&indices[range], epoch, device);
        };
        let ingredients = mixture.ingredients(range);
        let positions = ingredients.positions.iter();
        let indices: Vec<u32> = positions.map(|&position| indices[position]).collect();
        let batch = self.batch(&indices, epoch, device)?;
        Ok(mixture.apply(batch, &ingredients))
    }

    /// Assembles the images at `indices` into a batch, augmented for `epoch`.
    fn batch(&self, indices: &[u32], epoch: u64, device: &Device) -> Result<Batch, PixelError> {
        if let Some(cache) = self.caches.iter().find(|cache| cache.is_on(device)) {
            let size = self.size();
            let transforms = match self.augmentation {
                None => Vec::new(),
                Some((augmentation, seed)) => indices
                    .par_iter()
                    .map(|&index| Transform::draw(&augmentation, size, seed, epoch, index as usize))
                    .collect(),
            };
            return Ok(cache.batch(indices, &transforms, self.batcher.scaling));
        }
        let mut samples = self
            .dataset
            .get_many(indices.iter().map(|&index| index as usize).collect())?;
        if let Some((augmentation, seed)) = self.augmentation {
            let fill = self.batcher.scaling.zero();
            let samples = samples.par_iter_mut().zip(indices);
            samples.for_each(|(sample, &index)| {
                augmentation.apply(sample, fill, seed, epoch, index as usize);
            });
        }
        Ok(self.batcher.batch(samples, device))
    }

    fn with(&self, dataset: ImageDataset, device: Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            dataset,
            device,
            caches: Vec::new(),
            ..*self
        })
    }
}

impl DataLoader<Batch> for Loader {
    /// Iterates over the first epoch, since the trait has no epoch number.
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(self.batches(1))
    }

    fn num_items(&self) -> usize {
        self.dataset.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        self.with(self.dataset.clone(), device.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        self.with(self.dataset.select(start..end), self.device.clone())
    }
}

/// An iterator over the batches of one epoch.
#[derive(Debug)]
pub struct Batches<'a> {
    loader: &'a Loader,
    epoch: u64,
    order: Vec<u32>,
    /// Number of batches taken or skipped.
    number: usize,
}

impl Batches<'_> {
    /// Returns the number of images in the next `batches`.
    pub fn images_in_next(&self, batches: usize) -> usize {
        let end = self.number.saturating_add(batches);
        self.loader.images_in(end) - self.loader.images_in(self.number)
    }

    /// Returns the next batch as shards of almost equal size, one per device in the given order, or
    /// `None` at the end of the epoch. A batch with fewer images than devices has fewer shards.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read from the dataset.
    ///
    /// # Panics
    /// Panics if `devices` is empty.
    pub fn next_shards(&mut self, devices: &[Device]) -> Option<Result<Vec<Batch>, PixelError>> {
        assert!(!devices.is_empty(), "no device");
        if self.number >= self.loader.num_batches() {
            return None;
        }
        let (epoch, number) = (self.epoch, self.number);
        let start = self.loader.images_in(number);
        self.number += 1;
        let indices = &self.order[start..self.loader.images_in(self.number)];
        let mixture = self.loader.mixture(indices.len(), epoch, number);
        let mut shards = Vec::with_capacity(devices.len());
        let mut start = 0;
        for (at, device) in devices.iter().enumerate() {
            let end = start + (indices.len() - start).div_ceil(devices.len() - at);
            if start < end {
                let (range, mixture) = (start..end, mixture.as_ref());
                shards.push(self.loader.part(indices, range, mixture, epoch, device));
            }
            start = end;
        }
        Some(shards.into_iter().collect())
    }

    /// Returns the next batch on the device of the loader, or `None` at the end of the epoch.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read from the dataset.
    pub fn next_batch(&mut self) -> Option<Result<Batch, PixelError>> {
        let loader = self.loader;
        let shards = self.next_shards(slice::from_ref(&loader.device))?;
        shards.map(|mut shards| shards.pop()).transpose()
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_batch()?.map_err(DatasetError::new))
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        let position = self.loader.images_in(self.number);
        Progress::new(position, self.order.len(), Some("items".into()))
    }
}

/// Returns as many images as there are, the same number of each class or one more, in a random order.
fn balanced(dataset: &ImageDataset, seed: u64, epoch: u64) -> Vec<u32> {
    let count = dataset.len();
    let mut classes: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
    for index in permutation(count, seed, epoch) {
        classes
            .entry(dataset.label(index as usize))
            .or_default()
            .push(index);
    }
    let (share, rest) = (count / classes.len().max(1), count % classes.len().max(1));
    let drawn = classes.into_values().enumerate().flat_map(|(at, images)| {
        let wanted = share + usize::from(at < rest);
        images.into_iter().cycle().take(wanted).collect::<Vec<_>>()
    });
    let drawn: Vec<u32> = drawn.collect();
    // Another stream of random numbers than the first permutation.
    let order = permutation(drawn.len(), seed, !epoch);
    order.into_iter().map(|at| drawn[at as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_dataset::tests::ramp;
    use crate::normalization::Scaling;
    use crate::per_channel::PerChannel;

    fn loader(order: Order) -> Loader {
        let scaling = Scaling::same(0.5, 0.25);
        let batcher = MnistBatcher { scaling };
        Loader::new(ramp(25), batcher, 10, order, Device::default())
    }

    /// Returns the stored pixel value of each image, in the order of an epoch.
    fn values(loader: &Loader, epoch: u64) -> Vec<i64> {
        loader
            .batches(epoch)
            .flat_map(|batch| {
                let images = batch.unwrap().images.slice([0..10, 0..1, 0..1, 0..1]);
                let values: Vec<f32> = images.into_data().try_to_vec().unwrap();
                values
                    .into_iter()
                    .map(|x| ((f64::from(x) * 0.25 + 0.5) * 255.0).round() as i64)
            })
            .collect()
    }

    #[test]
    fn balanced_order_has_equally_many_images_of_each_class() {
        let labels: Vec<u8> = (0..200).map(|at| u8::from(at >= 190)).collect();
        let images = crate::image_dataset::tests::ramp(200).relabeled_each(labels);
        let first = balanced(&images, 1, 1);
        assert_eq!(first.len(), 200);
        let rare: Vec<u32> = first
            .iter()
            .copied()
            .filter(|index| *index >= 190)
            .collect();
        assert_eq!(rare.len(), 100);
        // Each of the ten occurs ten times, and no frequent one twice.
        assert!((190..200).all(|index| rare.iter().filter(|rare| **rare == index).count() == 10));
        let unique: std::collections::HashSet<&u32> = first.iter().collect();
        assert_eq!(unique.len(), 110);
        assert_eq!(balanced(&images, 1, 1), first);
        assert_ne!(balanced(&images, 1, 2), first);
    }

    #[test]
    fn last_batch_is_smaller() {
        let loader = loader(Order::Sequential);
        let sizes: Vec<usize> = loader
            .iter()
            .map(|batch| batch.unwrap().targets.dims()[0])
            .collect();
        assert_eq!(sizes, [10, 10, 5]);
        assert_eq!(loader.num_batches(), 3);
    }

    #[test]
    fn small_last_batch_is_merged() {
        let sizes = |batch_size: usize, min_last_batch: usize| -> Vec<usize> {
            let loader = Loader {
                batch_size,
                ..loader(Order::Sequential).with_min_last_batch(min_last_batch)
            };
            let sizes = loader.iter().map(|batch| batch.unwrap().targets.dims()[0]);
            let sizes: Vec<usize> = sizes.collect();
            assert_eq!(sizes.len(), loader.num_batches());
            // The remaining batches after skipped ones are the same, and so is the number of images.
            for skipped in 0..=sizes.len() + 1 {
                let rest = &sizes[skipped.min(sizes.len())..];
                let mut batches = loader.batches_from(1, skipped);
                let all: usize = rest.iter().sum();
                assert_eq!(batches.progress().items_processed, 25 - all);
                for count in 0..4 {
                    let expected: usize = rest.iter().take(count).sum();
                    assert_eq!(batches.images_in_next(count), expected);
                }
                assert_eq!(batches.images_in_next(usize::MAX), all);
                let taken = batches
                    .by_ref()
                    .map(|batch| batch.unwrap().targets.dims()[0]);
                assert_eq!(taken.collect::<Vec<_>>(), rest);
                assert_eq!(batches.progress().items_processed, 25);
            }
            sizes
        };
        assert_eq!(sizes(10, 1), [10, 10, 5]);
        assert_eq!(sizes(10, 5), [10, 10, 5]);
        assert_eq!(sizes(10, 6), [10, 15]);
        assert_eq!(sizes(24, 8), [25]);
        assert_eq!(sizes(30, 99), [25]);
        assert_eq!(sizes(25, 99), [25]);
        // The last batch is whole.
        assert_eq!(sizes(5, 8), [5; 5]);
        assert_eq!(sizes(4, 8), [4, 4, 4, 4, 4, 5]);
    }

    #[test]
    fn order_depends_only_on_seed_and_epoch() {
        let orders = |seed| {
            let loader = loader(Order::Shuffled { seed });
            [values(&loader, 1), values(&loader, 2)]
        };
        let [first, second] = orders(7);
        assert_ne!(first, second);
        assert_eq!(orders(7), [first.clone(), second]);
        assert_ne!(orders(8)[0], first);
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..25).collect::<Vec<_>>());
    }

    #[test]
    fn slice_and_to_device_preserve_order() {
        let slice = loader(Order::Sequential).slice(5, 17);
        assert_eq!(slice.num_items(), 12);
        let slice = slice.to_device(&Device::default());
        let targets: Vec<i64> = slice
            .iter()
            .flat_map(|batch| {
                let targets = batch.unwrap().targets.into_data();
                targets.iter::<i64>().collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(targets, [5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn shards_concatenate_to_the_batch() {
        let device = Device::default();
        let loader = loader(Order::Sequential);
        let labels = |batch: &Batch| -> Vec<i64> {
            batch.targets.clone().into_data().iter::<i64>().collect()
        };
        let sizes = |devices: usize| -> Vec<Vec<usize>> {
            let devices = vec![device.clone(); devices];
            let mut sharded = loader.batches(1);
            let mut whole = loader.batches(1);
            let mut sizes = Vec::new();
            while let Some(shards) = sharded.next_shards(&devices) {
                let shards = shards.unwrap();
                let together: Vec<i64> = shards.iter().flat_map(labels).collect();
                assert_eq!(together, labels(&whole.next().unwrap().unwrap()));
                sizes.push(shards.iter().map(|shard| shard.images.dims()[0]).collect());
            }
            sizes
        };
        assert_eq!(sizes(1), [[10], [10], [5]]);
        assert_eq!(sizes(3), [[4, 3, 3], [4, 3, 3], [2, 2, 1]]);
        assert_eq!(sizes(8)[2], [1; 5]);
    }

    #[test]
    fn batches_of_color_images_are_normalized_per_channel() {
        let rgb = ramp(25).with_channels(3);
        let batch = |mean: PerChannel, std: PerChannel| -> Vec<f32> {
            let scaling = Scaling { mean, std };
            let batcher = MnistBatcher { scaling };
            let loader = Loader::new(
                rgb.clone(),
                batcher,
                10,
                Order::Sequential,
                Device::default(),
            );
            let batch = loader.iter().nth(1).unwrap().unwrap();
            batch.images.into_data().try_to_vec().unwrap()
        };
        let (means, stds) = ([0.5, 0.25, 0.0], [0.25, 0.5, 1.0]);
        let each = batch(PerChannel::Each(means), PerChannel::Each(stds));
        // All pixels of an image have the value of its index.
        for (at, pixel) in each.iter().enumerate() {
            let (image, channel) = (10 + at / 18, at / 6 % 3);
            let expected = (image as f64 / 255.0 - means[channel]) / stds[channel];
            assert!((f64::from(*pixel) - expected).abs() < 1e-6, "{at}: {pixel}");
        }
        // Descriptions of older versions have the same number for all channels, and give the bits of these versions.
        for (image, pixels) in batch(0.4.into(), 0.3.into()).chunks(18).enumerate() {
            let factor = (1.0 / (255.0 * 0.3)) as f32;
            let expected = (10 + image) as f32 * factor - (0.4 / 0.3) as f32;
            assert!(
                pixels
                    .iter()
                    .all(|pixel| pixel.to_bits() == expected.to_bits())
            );
        }
    }

    #[test]
    fn batches_are_normalized() {
        let batch = loader(Order::Sequential).iter().nth(1).unwrap().unwrap();
        assert_eq!(batch.images.dims(), [10, 1, 2, 3]);
        let pixels: Vec<f32> = batch.images.into_data().try_to_vec().unwrap();
        let expected = (10.0f32 / 255.0 - 0.5) / 0.25;
        assert!((pixels[0] - expected).abs() < 1e-6, "{}", pixels[0]);
        let targets = batch.targets.into_data().convert::<i64>();
        assert_eq!(
            targets.try_to_vec::<i64>().unwrap(),
            (0..10).collect::<Vec<_>>()
        );
    }
}
