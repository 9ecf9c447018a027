//! Batches from the device cache, verified against batches from the host.

use burn::tensor::{Device, Int, Tensor};
use data::{Augmentation, ImageDataset, Images, Loader, MnistBatcher, Order, Scaling};

/// Returns RGB noise, where neighboring pixels are unrelated.
fn noise(count: usize) -> ImageDataset {
    let images = Images {
        channels: 3,
        height: 11,
        width: 14,
        pixels: (0..count * 462)
            .map(|at| ((at * at * 7919) >> 3) as u8)
            .collect(),
    };
    ImageDataset::new(images, (0..count).map(|at| at as u8 % 10).collect()).unwrap()
}

#[test]
fn cached_batches_match_host_batches() {
    let none = Augmentation::default();
    for augmentation in [
        none,
        Augmentation {
            rotation: 20.0,
            scale: 0.3,
            flip: true,
            ..none
        },
        Augmentation {
            translation: 0.4,
            shear: 30.0,
            erasing: 0.7,
            ..none
        },
        Augmentation {
            elastic: 0.05,
            rotation: 5.0,
            ..none
        },
    ] {
        let scaling = Scaling {
            mean: 0.0,
            std: 1.0 / 255.0,
        };
        let order = Order::Shuffled { seed: 5 };
        let device = Device::default();
        let batcher = MnistBatcher { scaling };
        let host = Loader::new(noise(70), batcher, 32, order, device.clone())
            .with_augmentation(augmentation, 3);
        let cached = host.clone().cached_on(&[device]).unwrap();
        for (expected, found) in host.batches(2).zip(cached.batches(2)) {
            let (expected, found) = (expected.unwrap(), found.unwrap());
            assert_eq!(expected.images.dims(), found.images.dims());
            let error = (expected.images - found.images).abs();
            // Another order of summation may round to the adjacent integer.
            let max = error.clone().max().into_scalar::<f32>();
            let mean = error.mean().into_scalar::<f32>();
            assert!(max < 1.01 && mean < 1e-3, "{augmentation:?}: {max}, {mean}");
            let labels = |targets: Tensor<1, Int>| -> Vec<i64> {
                targets.into_data().iter::<i64>().collect()
            };
            assert_eq!(labels(expected.targets), labels(found.targets));
        }
    }
}
