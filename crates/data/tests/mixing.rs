//! Batches of mixup and CutMix.

use burn::tensor::{Device, Int, Tensor};
use data::{
    Augmentation, Batch, ImageDataset, Images, Loader, Mixing, MnistBatcher, Order, Scaling,
};

/// Batches of 10 of 24 images, where all pixels of the image with label `i` are `10 i`.
fn loader(mixup: f64, cutmix: f64, seed: u64) -> Loader {
    let images = Images {
        channels: 3,
        height: 6,
        width: 5,
        pixels: (0..24).flat_map(|label| [10 * label; 90]).collect(),
    };
    let images = ImageDataset::new(images, (0..24).collect()).unwrap();
    let scaling = Scaling::same(0.0, 1.0 / 255.0);
    let batcher = MnistBatcher { scaling };
    let augmentation = Augmentation {
        mixup,
        cutmix,
        ..Augmentation::default()
    };
    let order = Order::Shuffled { seed: 5 };
    Loader::new(images, batcher, 10, order, Device::default())
        .with_mixing(Mixing::of(&augmentation), seed)
}

/// The content of a batch of mixed images.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    /// `[N, 3, 6, 5]`
    pixels: Vec<f32>,
    targets: Vec<i64>,
    others: Vec<i64>,
    /// Weight of the other targets.
    weight: f64,
}

impl Content {
    fn of(batch: Batch) -> Self {
        let values = |tensor: Tensor<1, Int>| tensor.into_data().iter::<i64>().collect();
        let mixed = batch.mixed.unwrap();
        Self {
            pixels: batch.images.into_data().try_to_vec().unwrap(),
            targets: values(batch.targets),
            others: values(mixed.targets),
            weight: mixed.weight,
        }
    }

    /// Returns the pixels of each image, and the pixel values of its target and its other target.
    fn images(&self) -> impl Iterator<Item = (&[f32], f32, f32)> {
        let values = |labels: &[i64]| labels.iter().map(|&label| 10.0 * label as f32).collect();
        let [targets, others]: [Vec<f32>; 2] = [values(&self.targets), values(&self.others)];
        let images = self.pixels.chunks(90).zip(targets).zip(others);
        images.map(|((pixels, target), other)| (pixels, target, other))
    }
}

/// Returns the batches of epoch 3.
fn batches(loader: &Loader) -> Vec<Content> {
    let batches = loader.batches(3);
    batches.map(|batch| Content::of(batch.unwrap())).collect()
}

#[test]
fn mixup_adds_images_with_the_weights_of_their_targets() {
    let mut weights = Vec::new();
    for seed in 0..20 {
        for batch in batches(&loader(1.0, 0.0, seed)) {
            assert!((0.0..=0.5).contains(&batch.weight));
            weights.push(batch.weight);
            let weight = batch.weight as f32;
            for (pixels, target, other) in batch.images() {
                let expected = (1.0 - weight) * target + weight * other;
                let mut errors = pixels.iter().map(|pixel| (pixel - expected).abs());
                assert!(errors.all(|error| error < 1e-3));
            }
            // Each image is the partner of one image.
            let [mut targets, mut others] = [batch.targets, batch.others];
            targets.sort_unstable();
            others.sort_unstable();
            assert_eq!(targets, others);
        }
    }
    weights.sort_by(f64::total_cmp);
    assert!(weights[0] < 0.1 && weights[weights.len() - 1] > 0.4);
}

#[test]
fn cutmix_copies_a_rectangle_with_the_weight_of_its_area() {
    for seed in 0..20 {
        for batch in batches(&loader(0.0, 1.0, seed)) {
            assert!((0.0..=0.5).contains(&batch.weight));
            let mut mask: Option<Vec<bool>> = None;
            for (pixels, target, other) in batch.images().filter(|image| image.1 != image.2) {
                assert!(
                    pixels
                        .iter()
                        .all(|&pixel| pixel == target || pixel == other)
                );
                for plane in pixels.chunks(30) {
                    let is_other: Vec<bool> = plane.iter().map(|&pixel| pixel == other).collect();
                    let count = is_other.iter().filter(|&&is_other| is_other).count();
                    assert!((count as f64 / 30.0 - batch.weight).abs() < 1e-9);
                    // The same pixels of all images and channels.
                    assert_eq!(mask.get_or_insert_with(|| is_other.clone()), &is_other);
                }
            }
        }
    }
}

#[test]
fn parts_of_several_devices_are_parts_of_the_same_mixture() {
    for (mixup, cutmix) in [(0.4, 0.0), (0.0, 1.0)] {
        let loader = loader(mixup, cutmix, 7);
        let whole = batches(&loader);
        for devices in [2, 3, 7] {
            let devices = vec![Device::default(); devices];
            let mut shards = loader.batches(3);
            for expected in &whole {
                let mut found = Content::default();
                for part in shards.next_shards(&devices).unwrap().unwrap() {
                    assert!(part.images.dims()[0] < 10);
                    let part = Content::of(part);
                    found.pixels.extend(part.pixels);
                    found.targets.extend(part.targets);
                    found.others.extend(part.others);
                    found.weight = part.weight;
                }
                assert_eq!(found, *expected);
            }
        }
    }
}

#[test]
fn mixtures_depend_on_seed_epoch_and_batch_alone() {
    let whole = batches(&loader(0.4, 1.0, 7));
    assert_eq!(batches(&loader(0.4, 1.0, 7)), whole);
    assert_ne!(batches(&loader(0.4, 1.0, 8)), whole);
    assert_ne!(whole[0].weight, whole[1].weight);
    // A training that is resumed within the epoch continues with the same batches.
    let loader = loader(0.4, 1.0, 7);
    let rest = loader.batches_from(3, 1);
    let rest: Vec<Content> = rest.map(|batch| Content::of(batch.unwrap())).collect();
    assert_eq!(rest, whole[1..]);
    let other_epoch = loader.batches(4).next().unwrap().unwrap();
    assert_ne!(Content::of(other_epoch).weight, whole[0].weight);
}
