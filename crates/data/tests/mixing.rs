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
    let scaling = Scaling {
        mean: 0.0,
        std: 1.0 / 255.0,
    };
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

fn values(tensor: Tensor<1, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}

fn pixels(batch: &Batch) -> Vec<f32> {
    batch.images.clone().into_data().try_to_vec().unwrap()
}

/// Returns pixels, both targets and the weight of a batch.
fn content(batch: Batch) -> (Vec<f32>, Vec<i64>, Vec<i64>, f64) {
    let mixed = batch.mixed.clone().unwrap();
    let pixels = pixels(&batch);
    (
        pixels,
        values(batch.targets),
        values(mixed.targets),
        mixed.weight,
    )
}

/// Returns the batches of epoch 3.
fn batches(loader: &Loader) -> Vec<(Vec<f32>, Vec<i64>, Vec<i64>, f64)> {
    loader
        .batches(3)
        .map(|batch| content(batch.unwrap()))
        .collect()
}

#[test]
fn mixup_adds_images_with_the_weights_of_their_targets() {
    let mut weights = Vec::new();
    for seed in 0..20 {
        for (pixels, targets, others, weight) in batches(&loader(1.0, 0.0, seed)) {
            assert!((0.0..=0.5).contains(&weight));
            weights.push(weight);
            for ((image, target), other) in pixels.chunks(90).zip(&targets).zip(&others) {
                let [target, other] = [target, other].map(|&label| 10.0 * label as f64);
                let expected = (1.0 - weight) * target + weight * other;
                assert!(
                    image
                        .iter()
                        .all(|&pixel| (f64::from(pixel) - expected).abs() < 1e-3)
                );
            }
            // Each image is the partner of one image.
            let [mut targets, mut others] = [targets, others];
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
    let mut swapped = 0;
    for seed in 0..20 {
        for (pixels, targets, others, weight) in batches(&loader(0.0, 1.0, seed)) {
            assert!((0.0..=0.5).contains(&weight));
            let mut mask: Option<Vec<bool>> = None;
            for ((image, target), other) in pixels.chunks(30).zip(0..).map(|(plane, at)| {
                let image: usize = at / 3;
                ((plane, targets[image]), others[image])
            }) {
                if target == other {
                    continue;
                }
                let is_other: Vec<bool> = image.iter().map(|&x| x == 10.0 * other as f32).collect();
                for (pixel, &is_other) in image.iter().zip(&is_other) {
                    assert!(is_other || *pixel == 10.0 * target as f32);
                }
                let count = is_other.iter().filter(|&&is_other| is_other).count();
                assert!((count as f64 / 30.0 - weight).abs() < 1e-9);
                // The same pixels of all images and channels.
                assert_eq!(mask.get_or_insert_with(|| is_other.clone()), &is_other);
            }
            // Where the patch is larger than the rest, the image has the class of the patch.
            swapped += usize::from(mask.is_some_and(|mask| mask[0] && weight < 0.5));
        }
    }
    assert!(swapped > 0);
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
                let parts = shards.next_shards(&devices).unwrap().unwrap();
                assert!(parts.iter().all(|part| part.images.dims()[0] < 10));
                let mut found = (Vec::new(), Vec::new(), Vec::new(), 0.0);
                for part in parts {
                    let (pixels, targets, others, weight) = content(part);
                    found.0.extend(pixels);
                    found.1.extend(targets);
                    found.2.extend(others);
                    found.3 = weight;
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
    // A training that is resumed within the epoch continues with the same batches.
    let loader = loader(0.4, 1.0, 7);
    let rest = loader
        .batches_from(3, 1)
        .map(|batch| content(batch.unwrap()));
    assert!(rest.eq(whole[1..].iter().cloned()));
    let weights = |epoch| loader.batches(epoch).map(|batch| content(batch.unwrap()).3);
    assert!(weights(3).ne(weights(4)));
    let mut first = weights(3);
    assert_ne!(first.next(), first.next());
}
