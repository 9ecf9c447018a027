//! In which order, and how many at a time, a network sees the images.

use std::slice;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::augmentation::{Augmentation, Change};
use crate::batch::{Batch, MnistBatcher};
use crate::dataset::ImageDataset;
use crate::resident::Resident;

/// The order of a pass over the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the dataset, each time.
    Sequential,
    /// One that depends on the seed and the number of the pass, and on nothing else.
    Shuffled {
        /// The seed.
        seed: u64,
    },
}

/// Batches of a dataset on a device, in the order of [`pass`](Self::pass).
///
/// Batches are made by the thread that asks for them: that takes a small part of a training step,
/// and keeps their order the same from run to run.
#[derive(Clone, Debug)]
pub struct Loader {
    dataset: ImageDataset,
    batcher: MnistBatcher,
    batch_size: usize,
    order: Order,
    augmentation: Option<(Augmentation, u64)>,
    device: Device,
    residents: Vec<Resident>,
}

impl Loader {
    /// A loader of batches of `batch_size`, the last of which may be smaller.
    ///
    /// # Panics
    /// When the batch size is 0.
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
            order,
            augmentation: None,
            device,
            residents: Vec::new(),
        }
    }

    /// The same with images that are changed at random, by `seed`.
    pub fn with_augmentation(self, augmentation: Augmentation, seed: u64) -> Self {
        let augmentation = (!augmentation.is_none()).then_some((augmentation, seed));
        Self {
            augmentation,
            ..self
        }
    }

    /// The same, with all images copied to these devices now, unless they take too much room there: their
    /// batches are gathered and changed there.
    pub fn kept_on(self, devices: &[Device]) -> Self {
        let residents = devices.iter().enumerate();
        let residents = residents.filter(|(at, device)| !devices[..*at].contains(device));
        let residents = residents.filter_map(|(_, device)| Resident::on(device, &self.dataset));
        Self {
            residents: residents.collect(),
            ..self
        }
    }

    /// Batches in one pass.
    pub fn num_batches(&self) -> usize {
        self.dataset.len().div_ceil(self.batch_size)
    }

    /// The batches of epoch `epoch`, counted from 1.
    pub fn pass(&self, epoch: u64) -> Batches<'_> {
        self.pass_from(epoch, 0)
    }

    /// The same but for the first `batches`.
    pub fn pass_from(&self, epoch: u64, batches: usize) -> Batches<'_> {
        let count = self.dataset.len();
        let order = match self.order {
            Order::Sequential => (0..count as u32).collect(),
            Order::Shuffled { seed } => permutation(count, seed, epoch),
        };
        Batches {
            loader: self,
            epoch,
            order,
            position: batches.saturating_mul(self.batch_size).min(count),
        }
    }

    /// The images of these rows as they are in an epoch.
    fn batch(&self, rows: &[u32], epoch: u64, device: &Device) -> Result<Batch, DatasetError> {
        let resident = self
            .residents
            .iter()
            .find(|resident| resident.is_on(device));
        if let Some(resident) = resident {
            let size = [self.dataset.height(), self.dataset.width()];
            let changes = match self.augmentation {
                None => Vec::new(),
                Some((augmentation, seed)) => rows
                    .par_iter()
                    .map(|&row| Change::draw(&augmentation, size, seed, epoch, row as usize))
                    .collect(),
            };
            return Ok(resident.batch(rows, &changes, self.batcher.scaling));
        }
        let indices = rows.iter().map(|&row| row as usize).collect();
        let mut samples = self.dataset.get_many(indices)?;
        if let Some((augmentation, seed)) = self.augmentation {
            let samples = samples.par_iter_mut().zip(rows);
            samples
                .for_each(|(sample, &row)| augmentation.apply(sample, seed, epoch, row as usize));
        }
        Ok(self.batcher.batch(samples, device))
    }

    fn with(&self, dataset: ImageDataset, device: Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            dataset,
            device,
            residents: Vec::new(),
            ..*self
        })
    }
}

impl DataLoader<Batch> for Loader {
    /// The first pass, each time: the trait cannot say which epoch it asks for.
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(self.pass(1))
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

/// One pass over the images.
#[derive(Debug)]
pub struct Batches<'a> {
    loader: &'a Loader,
    epoch: u64,
    order: Vec<u32>,
    position: usize,
}

impl Batches<'_> {
    /// The next batch in parts of almost the same size, one for each device in turn: fewer where it has
    /// fewer images. `None` at the end.
    ///
    /// # Panics
    /// When there is no device.
    pub fn next_parts(&mut self, devices: &[Device]) -> Option<Result<Vec<Batch>, DatasetError>> {
        assert!(!devices.is_empty(), "no device");
        let rest = &self.order[self.position..];
        let mut rows = &rest[..rest.len().min(self.loader.batch_size)];
        if rows.is_empty() {
            return None;
        }
        self.position += rows.len();
        let mut parts = Vec::with_capacity(devices.len());
        for (at, device) in devices.iter().enumerate() {
            let (part, after) = rows.split_at(rows.len().div_ceil(devices.len() - at));
            if !part.is_empty() {
                parts.push(self.loader.batch(part, self.epoch, device));
            }
            rows = after;
        }
        Some(parts.into_iter().collect())
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let loader = self.loader;
        let parts = self.next_parts(slice::from_ref(&loader.device))?;
        // One device has one part.
        parts.map(|mut parts| parts.pop()).transpose()
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.position, self.order.len(), Some("items".into()))
    }
}

/// A random order of `0..count` that depends on `(seed, stream)` alone, on every machine.
pub fn permutation(count: usize, seed: u64, stream: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.shuffle(&mut rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::tests::ramp;
    use crate::normalization::Scaling;

    fn loader(order: Order) -> Loader {
        let scaling = Scaling {
            mean: 0.5,
            std: 0.25,
        };
        let batcher = MnistBatcher { scaling };
        Loader::new(ramp(25), batcher, 10, order, Device::default())
    }

    /// The pixel value of every image of one pass, as stored.
    fn values(loader: &Loader, epoch: u64) -> Vec<i64> {
        loader
            .pass(epoch)
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
    fn a_sequential_pass_keeps_the_order_and_the_last_batch_is_short() {
        let loader = loader(Order::Sequential);
        let sizes: Vec<usize> = loader
            .iter()
            .map(|batch| batch.unwrap().targets.dims()[0])
            .collect();
        assert_eq!(sizes, [10, 10, 5]);
        assert_eq!(loader.num_batches(), 3);
    }

    #[test]
    fn passes_depend_on_seed_and_epoch_alone() {
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
    fn slices_and_copies_keep_the_batches_of_their_images() {
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
    fn parts_are_the_batch_in_order() {
        let device = Device::default();
        let loader = loader(Order::Sequential);
        let labels = |batch: &Batch| -> Vec<i64> {
            batch.targets.clone().into_data().iter::<i64>().collect()
        };
        let sizes = |devices: usize| -> Vec<Vec<usize>> {
            let devices = vec![device.clone(); devices];
            let mut batches = loader.pass(1);
            let mut whole = loader.pass(1);
            let mut sizes = Vec::new();
            while let Some(parts) = batches.next_parts(&devices) {
                let parts = parts.unwrap();
                let together: Vec<i64> = parts.iter().flat_map(labels).collect();
                assert_eq!(together, labels(&whole.next().unwrap().unwrap()));
                sizes.push(parts.iter().map(|part| part.images.dims()[0]).collect());
            }
            sizes
        };
        assert_eq!(sizes(1), [[10], [10], [5]]);
        assert_eq!(sizes(3), [[4, 3, 3], [4, 3, 3], [2, 2, 1]]);
        assert_eq!(sizes(8)[2], [1; 5]);
    }

    #[test]
    fn the_shuffle_is_the_same_on_every_machine() {
        assert_eq!(permutation(8, 42, 1), [6, 4, 5, 3, 2, 1, 0, 7]);
    }

    #[test]
    fn pixels_and_targets_arrive_normalised() {
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
