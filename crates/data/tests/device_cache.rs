//! Batches from the device cache, verified against batches from the host.

use burn::tensor::{Device, Int, Tensor};
use data::{
    Augmentation, CropPadding, Flip, ImageDataset, Images, Loader, Mixing, MnistBatcher, Order,
    PerChannel, Scaling,
};

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

/// Returns one augmentation with each transform, and some with several.
fn augmentations() -> Vec<Augmentation> {
    let none = Augmentation::default();
    let every = Augmentation {
        rotation: 20.0,
        scale: 0.2,
        resized_crop: 0.4,
        flip: Flip::Random,
        crop: 3,
        brightness: 0.4,
        contrast: 0.4,
        saturation: 0.4,
        hue: 0.1,
        erasing: 0.5,
        cutout: 5,
        mixup: 0.5,
        cutmix: 1.0,
        ..none
    };
    vec![
        none,
        Augmentation {
            rotation: 20.0,
            scale: 0.3,
            flip: Flip::Random,
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
        Augmentation {
            flip: Flip::Random,
            ..none
        },
        Augmentation {
            flip: Flip::Alternating,
            crop: 4,
            ..none
        },
        Augmentation {
            flip: Flip::Random,
            crop: 10,
            crop_padding: CropPadding::Zero,
            ..none
        },
        Augmentation {
            resized_crop: 0.1,
            flip: Flip::Alternating,
            ..none
        },
        Augmentation {
            cutout: 6,
            erasing: 0.5,
            ..none
        },
        Augmentation {
            brightness: 0.9,
            ..none
        },
        Augmentation {
            contrast: 0.9,
            ..none
        },
        Augmentation {
            saturation: 1.0,
            ..none
        },
        Augmentation { hue: 0.5, ..none },
        Augmentation { mixup: 0.3, ..none },
        Augmentation {
            cutmix: 1.0,
            ..none
        },
        every,
        Augmentation {
            crop_padding: CropPadding::Zero,
            elastic: 0.05,
            ..every
        },
    ]
}

/// Asserts that batches of cached images equal batches assembled on the host.
fn check(images: &ImageDataset, augmentation: Augmentation) {
    let std = PerChannel::Same(1.0 / 255.0);
    let mean = match images.channels() {
        3 => PerChannel::Each([0.4, 0.1, 0.9]),
        _ => PerChannel::Same(0.4),
    };
    let scaling = Scaling { mean, std };
    let order = Order::Shuffled { seed: 5 };
    let device = Device::default();
    let batcher = MnistBatcher { scaling };
    let host = Loader::new(images.clone(), batcher, 32, order, device.clone())
        .with_augmentation(augmentation, 3)
        .with_mixing(Mixing::of(&augmentation), 3);
    let cached = host.clone().cached_on(&[device]).unwrap();
    let labels =
        |targets: Tensor<1, Int>| -> Vec<i64> { targets.into_data().iter::<i64>().collect() };
    for (expected, found) in host.batches(2).zip(cached.batches(2)) {
        let (expected, found) = (expected.unwrap(), found.unwrap());
        assert_eq!(expected.images.dims(), found.images.dims());
        let error = (expected.images - found.images).abs();
        // The displacements of elastic distortion are sums in another order, which may round to the adjacent
        // integer.
        let max = error.clone().max().into_scalar::<f32>();
        let mean = error.mean().into_scalar::<f32>();
        let (max_error, mean_error) = match augmentation.elastic > 0.0 {
            true => (1.01, 1e-3),
            false => (0.0, 0.0),
        };
        assert!(
            max <= max_error && mean <= mean_error,
            "{augmentation:?}: {max}, {mean}"
        );
        assert_eq!(labels(expected.targets), labels(found.targets));
        assert_eq!(expected.mixed.is_some(), found.mixed.is_some());
        for (expected, found) in expected.mixed.into_iter().zip(found.mixed) {
            assert_eq!(expected.weight, found.weight);
            assert_eq!(labels(expected.targets), labels(found.targets));
        }
    }
}

#[test]
fn cached_batches_match_host_batches() {
    let images = noise(70);
    for augmentation in augmentations() {
        check(&images, augmentation);
        check(&images.with_channels(1), augmentation);
    }
}
