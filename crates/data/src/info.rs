//! The description of a dataset: name, classes, image shape and pixel statistics.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;
use crate::image_dataset::ImageDataset;
use crate::normalization::Scaling;
use crate::per_channel::PerChannel;
use crate::picture_store::PixelError;
use crate::preparation::Preparation;

/// The description of a dataset: name, classes, image shape and pixel statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetInfo {
    /// `mnist`, `fashion-mnist`, or the name of the folder.
    pub name: String,
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
    /// Number of channels: 1 for gray, 3 for RGB.
    #[serde(default = "default_channels")]
    pub channels: usize,
    /// Height of an image in pixels.
    pub height: usize,
    /// Width of an image in pixels.
    pub width: usize,
    /// Mean of the training pixels, scaled to `0.0..=1.0`. Descriptions of older versions have one number for all
    /// channels of RGB images.
    pub mean: PerChannel,
    /// Standard deviation of the training pixels, scaled to `0.0..=1.0`, in the form of the mean.
    pub std: PerChannel,
    /// Conversion of a picture into an image in the style of the dataset.
    #[serde(default)]
    pub preparation: Preparation,
}

/// Descriptions written before color was supported have no number of channels.
fn default_channels() -> usize {
    1
}

/// A published dataset, recognized by the SHA-256 of its training labels.
struct KnownDataset {
    train_labels_sha256: &'static str,
    name: &'static str,
    classes: [&'static str; 10],
    mean: f64,
    std: f64,
    preparation: Preparation,
}

/// Means and standard deviations are the commonly used ones, rounded to four digits.
const KNOWN_DATASETS: [KnownDataset; 2] = [
    KnownDataset {
        train_labels_sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        name: "mnist",
        classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        mean: 0.1307,
        std: 0.3081,
        preparation: Preparation::Handwriting,
    },
    KnownDataset {
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
    /// Describes a dataset by its folder and its training images.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn measured(
        folder: &Path,
        classes: Vec<String>,
        preparation: Preparation,
        train: &ImageDataset,
    ) -> Result<Self, PixelError> {
        let Scaling { mean, std } = measure(train)?;
        Ok(Self {
            name: folder_name(folder),
            classes,
            channels: train.channels(),
            height: train.height(),
            width: train.width(),
            mean,
            std,
            preparation,
        })
    }

    /// Returns the description with the statistics over all channels of the training images if `other` has such, as
    /// descriptions of older versions do.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub fn in_form_of(self, other: &Self, train: &ImageDataset) -> Result<Self, PixelError> {
        let (PerChannel::Same(_), PerChannel::Each(_)) = (other.mean, self.mean) else {
            return Ok(self);
        };
        let (mean, std) = train.mean_std()?;
        Ok(Self {
            mean: mean.into(),
            std: divisor(std).into(),
            ..self
        })
    }

    /// Returns the description of the data set after conversion to `channels`. `train` are the converted training images.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn with_channels(
        self,
        channels: usize,
        train: &ImageDataset,
    ) -> Result<Self, PixelError> {
        // The channels of gray images have equal statistics in RGB.
        let Scaling { mean, std } = match channels < self.channels {
            true => measure(train)?,
            false => Scaling {
                mean: self.mean,
                std: self.std,
            },
        };
        Ok(Self {
            channels,
            mean,
            std,
            ..self
        })
    }

    /// Returns the description of the data set after scaling. `train` are the scaled training images.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn resized(self, train: &ImageDataset) -> Result<Self, PixelError> {
        let Scaling { mean, std } = measure(train)?;
        Ok(Self {
            height: train.height(),
            width: train.width(),
            mean,
            std,
            ..self
        })
    }

    /// Returns whether both describe images of the same classes, shape and statistics. The name of the
    /// folder and the preparation of pictures are not compared.
    pub fn is_same_data(&self, other: &Self) -> bool {
        let other = Self {
            name: self.name.clone(),
            preparation: self.preparation,
            ..other.clone()
        };
        *self == other
    }

    /// Returns the shape of an image, `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Returns the mean and standard deviation of the normalization `mean-std`.
    pub fn scaling(&self) -> Scaling {
        Scaling {
            mean: self.mean,
            std: self.std,
        }
    }
}

/// Measures the mean and standard deviation of images, of each channel if they are RGB.
fn measure(train: &ImageDataset) -> Result<Scaling, PixelError> {
    let channels = train.channel_mean_std()?;
    Ok(match channels[..] {
        [red, green, blue] => {
            let channels = [red, green, blue];
            Scaling {
                mean: PerChannel::Each(channels.map(|(mean, _)| mean)),
                std: PerChannel::Each(channels.map(|(_, std)| divisor(std))),
            }
        }
        _ => {
            let (mean, std) = channels[0];
            Scaling::same(mean, divisor(std))
        }
    })
}

/// Returns a standard deviation to divide by: constant images have none.
fn divisor(std: f64) -> f64 {
    if std > 0.0 { std } else { 1.0 }
}

/// Describes a dataset by its training images. Returns the description, and the reason for its
/// number of classes.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn describe(
    folder: &Path,
    train: &ImageDataset,
) -> Result<(DatasetInfo, String), PixelError> {
    if let Some(info) = describe_known(folder, train)? {
        let reason = format!("{} has {} classes", info.name, info.classes.len());
        return Ok((info, reason));
    }
    let last = train.labels().max().unwrap_or(0);
    let classes = (0..=last).map(|class| class.to_string()).collect();
    let info = DatasetInfo::measured(folder, classes, Preparation::default(), train)?;
    Ok((info, "the largest training label".into()))
}

/// Describes a published dataset, recognized by its training labels; returns `None` for others.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub(crate) fn describe_known(
    folder: &Path,
    train: &ImageDataset,
) -> Result<Option<DatasetInfo>, PixelError> {
    let digest = labels_sha256(train);
    let known = KNOWN_DATASETS
        .iter()
        .find(|known| known.train_labels_sha256 == digest);
    let Some(known) = known else {
        return Ok(None);
    };
    let classes = known.classes.map(String::from).to_vec();
    let measured = DatasetInfo::measured(folder, classes, known.preparation, train)?;
    let mut info = DatasetInfo {
        name: known.name.into(),
        ..measured
    };
    if known.matches_pixels(train)? {
        (info.mean, info.std) = (known.mean.into(), known.std.into());
    }
    Ok(Some(info))
}

impl KnownDataset {
    /// Returns whether the pixel statistics of a sample of images match the published ones. Images
    /// with the same labels may have been inverted or scaled.
    fn matches_pixels(&self, train: &ImageDataset) -> Result<bool, PixelError> {
        let sample = train.select((0..train.len()).step_by(100));
        let (mean, std) = sample.mean_std()?;
        Ok((mean - self.mean).abs() < 0.01 && (std - self.std).abs() < 0.01)
    }
}

/// Returns the name of a folder, also for a path such as `.`, or of a file without its extension.
fn folder_name(folder: &Path) -> String {
    let path = folder.canonicalize().unwrap_or_else(|_| folder.into());
    let name = match path.is_file() {
        true => path.file_stem(),
        false => path.file_name(),
    };
    let name = name.unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Returns the SHA-256 of the uncompressed IDX file of the labels.
fn labels_sha256(dataset: &ImageDataset) -> String {
    let mut bytes = vec![0, 0, 8, 1];
    bytes.extend((dataset.len() as u32).to_be_bytes());
    bytes.extend(dataset.labels());
    sha256_hex([bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_dataset::Images;

    /// Describes images of 1x2 pixels.
    fn measured(channels: usize, pixels: &[u8]) -> (DatasetInfo, ImageDataset) {
        let images = Images {
            channels,
            height: 1,
            width: 2,
            pixels: pixels.to_vec(),
        };
        let labels = vec![0; images.count()];
        let images = ImageDataset::new(images, labels).unwrap();
        let classes = vec!["a".into()];
        let folder = Path::new("folder");
        let info = DatasetInfo::measured(folder, classes, Preparation::Picture, &images);
        (info.unwrap(), images)
    }

    #[test]
    fn color_images_have_statistics_of_each_channel() {
        let (info, _) = measured(3, &[0, 255, 51, 51, 0, 0]);
        assert_eq!(info.mean, PerChannel::Each([0.5, 0.2, 0.0]));
        // A constant channel is not scaled.
        assert_eq!([1, 2].map(|channel| info.std.of(channel)), [1.0; 2]);
        assert_eq!(info.std.of(0), 0.5);
        let (info, _) = measured(1, &[0, 255]);
        assert_eq!(info.scaling(), Scaling::same(0.5, 0.5));
    }

    #[test]
    fn statistics_take_the_form_of_an_older_description() {
        let (info, images) = measured(3, &[0, 255, 51, 51, 0, 0]);
        let (mean, std) = images.mean_std().unwrap();
        let older = DatasetInfo {
            mean: mean.into(),
            std: std.into(),
            ..info.clone()
        };
        assert!(!info.is_same_data(&older));
        let same = info.clone().in_form_of(&older, &images).unwrap();
        assert!(same.is_same_data(&older));
        let same = info.clone().in_form_of(&info, &images).unwrap();
        assert_eq!(same, info);
        let (gray, images) = measured(1, &[0, 255]);
        assert_eq!(gray.clone().in_form_of(&older, &images).unwrap(), gray);
    }
}
