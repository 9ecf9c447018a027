//! Digests of augmented images, recorded when each transform was added: a run with the same settings and seed
//! trains on the same pixels in every version.

use burn::data::dataset::Dataset;
use data::digest::sha256_hex;
use data::{Augmentation, Flip, ImageDataset, Images};

/// Returns 40 images of noise with 3 channels, where neighboring pixels are unrelated.
fn noise() -> ImageDataset {
    let images = Images {
        channels: 3,
        height: 13,
        width: 16,
        pixels: (0..40 * 624_usize)
            .map(|at| ((at * at * 7919) >> 3) as u8)
            .collect(),
    };
    ImageDataset::new(images, vec![0; 40]).unwrap()
}

/// Returns the digest of images augmented for the epochs 1 to 5.
fn digest(images: &ImageDataset, augmentation: Augmentation) -> String {
    let pixels = (1..=5).flat_map(|epoch| {
        (0..images.len()).map(move |index| {
            let mut sample = images.get(index).unwrap();
            augmentation.apply(&mut sample, [0; 3], 42, epoch, index);
            sample.pixels
        })
    });
    let pixels: Vec<Vec<u8>> = pixels.collect();
    sha256_hex(pixels.iter().map(Vec::as_slice))
}

#[test]
fn transforms_of_earlier_versions_are_unchanged() {
    let none = Augmentation::default();
    // Of the preset `best`.
    let best = Augmentation {
        rotation: 10.0,
        translation: 0.08,
        scale: 0.1,
        shear: 10.0,
        elastic: 0.02,
        ..none
    };
    let images = noise();
    let mnist = data::Dataset::embedded_mnist()
        .unwrap()
        .train
        .select(0..100);
    let with_flip = |augmentation: Augmentation| Augmentation {
        erasing: 0.5,
        flip: Flip::Random,
        ..augmentation
    };
    for (images, augmentation, expected) in [
        (
            &mnist,
            best,
            "4a2eb7804cc74a23ca40bb364d6ff451213a594f41976c1ef970310a9711580b",
        ),
        (
            &images,
            best,
            "28f8a6ac965d17df3cb52147b7d38e3bb12cae62ecd7955b4c3fcfeb5e02229a",
        ),
        (
            &images,
            with_flip(none),
            "de685d7928f0d76a20a846359ee3c8f77310266167fcd48be3930883e7d5ce46",
        ),
        (
            &images,
            with_flip(best),
            "5bd156e1ab3167483f4e00080b3174196babf3d9c76135a8d68e9b21564c3fbc",
        ),
    ] {
        assert_eq!(digest(images, augmentation), expected, "{augmentation:?}");
    }
}
