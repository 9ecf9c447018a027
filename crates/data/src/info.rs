//! What is known about a dataset beyond its pixels.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dataset::ImageDataset;
use crate::normalization::Scaling;

/// What is known about a dataset beyond its pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetInfo {
    /// `mnist`, `fashion-mnist`, or the name of the folder it came from.
    pub name: String,
    /// Name of each class, in the order of the labels.
    pub classes: Vec<String>,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Mean of the training pixels, in `0.0..=1.0`.
    pub mean: f64,
    /// Standard deviation of the training pixels, in `0.0..=1.0`.
    pub std: f64,
}

/// A dataset this program knows, recognised by the SHA-256 of its training labels.
struct Known {
    train_labels_sha256: &'static str,
    name: &'static str,
    classes: [&'static str; 10],
    mean: f64,
    std: f64,
}

/// Means and standard deviations are those the datasets' users quote, to four digits.
const KNOWN: [Known; 2] = [
    Known {
        train_labels_sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        name: "mnist",
        classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        mean: 0.1307,
        std: 0.3081,
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
    },
];

impl DatasetInfo {
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
    let (mean, std) = match known.filter(|known| known.has_pixels_of(train)) {
        Some(known) => (known.mean, known.std),
        None => train.mean_std(),
    };
    let (name, classes, reason) = match known {
        Some(Known { name, classes, .. }) => (
            (*name).into(),
            classes.map(String::from).to_vec(),
            format!("{name} has {} classes", classes.len()),
        ),
        None => {
            let last = (0..train.len()).map(|i| train.label(i)).max().unwrap_or(0);
            let classes = (0..=last).map(|class| class.to_string()).collect();
            (
                folder_name(folder),
                classes,
                "the largest training label".into(),
            )
        }
    };
    let info = DatasetInfo {
        name,
        classes,
        height: train.height(),
        width: train.width(),
        mean,
        // Images of one flat grey have no spread to divide by.
        std: if std > 0.0 { std } else { 1.0 },
    };
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
    bytes.extend((0..dataset.len()).map(|i| dataset.label(i)));
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(all(test, feature = "embedded-mnist"))]
mod tests {
    use super::*;
    use crate::idx::Images;
    use crate::source::Splits;

    #[test]
    fn known_labels_with_other_pixels_are_measured() {
        let train = Splits::embedded_mnist().unwrap().train;
        let inverted = Images {
            height: train.height(),
            width: train.width(),
            pixels: (0..train.len())
                .flat_map(|i| train.pixels(i).iter().map(|pixel| 255 - pixel))
                .collect(),
        };
        let labels = (0..train.len()).map(|i| train.label(i)).collect();
        let inverted = ImageDataset::new(inverted, labels).unwrap();
        let (info, _) = describe(Path::new("inverted"), &inverted);
        assert_eq!(info.name, "mnist");
        assert!((info.mean - (1.0 - 0.1307)).abs() < 1e-4, "{}", info.mean);
    }
}
