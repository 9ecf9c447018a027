//! Images of noise, for measurements of speed.

use data::{DatasetInfo, ImageDataset, Images, PerChannel, Preparation, permutation};

use crate::run::images::DataSplit;

/// Highest number of images.
const MAX_IMAGES: usize = 2000;
/// Number of pixel values in that many color images of 32x32 pixels. There are fewer images of larger sizes.
const VALUES: usize = MAX_IMAGES * 3 * 32 * 32;
/// Number of classes.
const CLASSES: u8 = 10;

/// Returns images of noise, for training as for tests, and their description.
pub(crate) fn noise_images(channels: usize, size: usize) -> (DatasetInfo, DataSplit) {
    let count = (VALUES / (channels * size * size)).clamp(usize::from(CLASSES), MAX_IMAGES);
    let random = permutation(count * channels * size * size, 0, 0);
    let images = Images {
        channels,
        height: size,
        width: size,
        pixels: random.into_iter().map(|value| value as u8).collect(),
    };
    let labels = (0..CLASSES).cycle().take(count).collect();
    let images = ImageDataset::new(images, labels).expect("a label for each image");
    let info = DatasetInfo {
        name: "noise".into(),
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        channels,
        height: size,
        width: size,
        mean: PerChannel::Each([0.5; 3]),
        std: PerChannel::Each([0.29; 3]),
        preparation: Preparation::Picture,
    };
    let split = DataSplit {
        train: images.clone(),
        validation: images.select(0..0),
        test: images,
    };
    (info, split)
}
