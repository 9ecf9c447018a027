//! What is known about a dataset beyond its pixels.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::ImageDataset;
use crate::digest::sha256_hex;
use crate::normalization::Scaling;
use crate::preparation::Preparation;

/// What is known about a dataset beyond its pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetInfo {
    /// `mnist`, `fashion-mnist`, or the name of the folder it came from.
    pub name: String,
    /// Name of each class, in the order of the labels.
    pub classes: Vec<String>,
    /// Values of a pixel: 1 for grey, 3 for red, green and blue.
    #[serde(default = "one")]
    pub channels: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Mean of the training pixels, in `0.0..=1.0`.
    pub mean: f64,
    /// Standard deviation of the training pixels, in `0.0..=1.0`.
    pub std: f64,
    /// How a picture is brought to what these images look like.
    #[serde(default)]
    pub preparation: Preparation,
}

/// What older descriptions leave out: their images are grey.
fn one() -> usize {
    1
}

/// A dataset this program knows, recognised by the SHA-256 of its training labels.
struct Known {
    train_labels_sha256: &'static str,
    name: &'static str,
    classes: [&'static str; 10],
    mean: f64,
    std: f64,
    preparation: Preparation,
}

/// Means and standard deviations are those the datasets' users quote, to four digits.
const KNOWN: [Known; 2] = [
    Known {
        train_labels_sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        name: "mnist",
        classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        mean: 0.1307,
        std: 0.3081,
        preparation: Preparation::Handwriting,
    },
    Known {
        train_labels_sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        name: "fashion-mnist",
        classes: [
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ],
        mean: 0.2860,
        std: 0.3530,
        preparation: Preparation::Object,
    },
];

impl DatasetInfo {
    /// A dataset that is not known, by its training images.
    pub(crate) fn measured(
        folder: &Path,
        classes: Vec<String>,
        preparation: Preparation,
        train: &ImageDataset,
    ) -> Self {
        let (mean, std) = train.mean_std();
        Self {
            name: folder_name(folder),
            classes,
            channels: train.channels(),
            height: train.height(),
            width: train.width(),
            mean,
            // Images of one flat grey have no spread to divide by.
            std: if std > 0.0 { std } else { 1.0 },
            preparation,
        }
    }

    /// Whether both tell of the same images. How pictures are prepared for them is another matter.
    pub fn is_same_data(&self, other: &Self) -> bool {
        let other = Self {
            preparation: self.preparation,
            ..other.clone()
        };
        *self == other
    }

    /// `[channels, height, width]` of an image.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// The numbers of the normalisation `mean-std`.
    pub fn scaling(&self) -> Scaling {
        Scaling {
            mean: self.mean,
            std: self.std,
        }
    }
}

/// The facts, known or taken from the training split, and where the number of classes comes from.
pub(crate) fn describe(folder: &Path, train: &ImageDataset) -> (DatasetInfo, String) {
    let digest = labels_sha256(train);
    let known = KNOWN
        .iter()
        .find(|known| known.train_labels_sha256 == digest);
    let Some(known) = known else {
        let last = train.labels().max().unwrap_or(0);
        let classes = (0..=last).map(|class| class.to_string()).collect();
        let info = DatasetInfo::measured(folder, classes, Preparation::default(), train);
        return (info, "the largest training label".into());
    };
    let classes = known.classes.map(String::from).to_vec();
    let reason = format!("{} has {} classes", known.name, classes.len());
    let measured = DatasetInfo::measured(folder, classes, known.preparation, train);
    let mut info = DatasetInfo {
        name: known.name.into(),
        ..measured
    };
    if known.has_pixels_of(train) {
        (info.mean, info.std) = (known.mean, known.std);
    }
    (info, reason)
}

impl Known {
    /// Whether some of the images look like its own. The pixels may have been inverted or scaled,
    /// whatever the labels are.
    fn has_pixels_of(&self, train: &ImageDataset) -> bool {
        let (mean, std) = train.select((0..train.len()).step_by(100)).mean_std();
        (mean - self.mean).abs() < 0.01 && (std - self.std).abs() < 0.01
    }
}

/// The folder's own name, also where it was given as `.` or the like.
fn folder_name(folder: &Path) -> String {
    let path = folder.canonicalize().unwrap_or_else(|_| folder.into());
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// SHA-256 of the label file as it was before compression: header and labels.
fn labels_sha256(dataset: &ImageDataset) -> String {
    let mut bytes = vec![0, 0, 8, 1];
    bytes.extend((dataset.len() as u32).to_be_bytes());
    bytes.extend(dataset.labels());
    sha256_hex([bytes])
}

#[cfg(all(test, feature = "embedded-mnist"))]
mod tests {
    use super::*;
    use crate::dataset::Images;
    use crate::source::Splits;

    #[test]
    fn known_labels_with_other_pixels_are_measured() {
        let train = Splits::embedded_mnist().unwrap().train;
        let inverted = Images {
            channels: 1,
            height: train.height(),
            width: train.width(),
            pixels: (0..train.len())
                .flat_map(|i| train.pixels(i).iter().map(|pixel| 255 - pixel))
                .collect(),
        };
        let labels = train.labels().collect();
        let inverted = ImageDataset::new(inverted, labels).unwrap();
        let (info, _) = describe(Path::new("inverted"), &inverted);
        assert_eq!(info.name, "mnist");
        assert!((info.mean - (1.0 - 0.1307)).abs() < 1e-4, "{}", info.mean);
    }
}
