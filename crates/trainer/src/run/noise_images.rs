//! Images of noise, for measurements of speed.

use data::{DatasetInfo, ImageDataset, Images, PerChannel, Preparation, permutation};

use crate::run::images::DataSplit;

/// Number of images in each split.
const IMAGES: usize = 2000;
/// Number of classes.
const CLASSES: u8 = 10;

/// Returns color images of noise, and their description.
pub(crate) fn noise_images(size: usize) -> (DatasetInfo, DataSplit) {
    let values = IMAGES * 3 * size * size;
    let random = permutation(values, 0, 0);
    let images = Images {
        channels: 3,
        height: size,
        width: size,
        pixels: random.into_iter().map(|value| value as u8).collect(),
    };
    let labels = (0..CLASSES).cycle().take(IMAGES).collect();
    let images = ImageDataset::new(images, labels).expect("a label for each image");
    let info = DatasetInfo {
        name: "noise".into(),
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        channels: 3,
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
