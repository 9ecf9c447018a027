//! Labeled images in memory, and views of them.

use std::fmt;
use std::sync::Arc;

use burn::data::dataset::{Dataset, DatasetError};

use crate::digest::sha256_hex;
use crate::sample::Sample;
use crate::source_file::SourceFile;

/// Images of one shape in one allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct Images {
    /// Number of channels: 1 for gray, 3 for RGB.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Pixel values, `[count, channels, height, width]`, row-major.
    pub pixels: Vec<u8>,
}

impl Images {
    /// Returns the number of values of one image: `channels * height * width`.
    pub fn size(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.pixels.len() / self.size()
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            channels,
            height,
            width,
            ..
        } = self;
        write!(
            f,
            "Images([{}, {channels}, {height}, {width}])",
            self.count()
        )
    }
}

/// A view of labeled images of one shape. Clones and [selections](Self::select) share the pixels.
#[derive(Clone, Debug)]
pub struct ImageDataset {
    images: Arc<Images>,
    labels: Arc<[u8]>,
    /// The file of each image, if the images were decoded from files of their own.
    files: Option<Arc<[SourceFile]>>,
    /// Indices into `images`, `labels` and `files`, in the order of the view.
    indices: Arc<[u32]>,
}

impl ImageDataset {
    /// Creates a dataset from images and their labels.
    ///
    /// # Errors
    /// Returns the numbers of images and labels if they differ.
    pub fn new(images: Images, labels: Vec<u8>) -> Result<Self, (usize, usize)> {
        let count = images.count();
        if count != labels.len() {
            return Err((count, labels.len()));
        }
        Ok(Self {
            images: Arc::new(images),
            labels: labels.into(),
            files: None,
            // The count fits into `u32`: IDX headers limit it, and folders do not hold more files.
            indices: (0..count as u32).collect(),
        })
    }

    /// Adds the file that each image was decoded from.
    ///
    /// # Errors
    /// Returns the numbers of images and files if they differ.
    pub fn with_files(self, files: Vec<SourceFile>) -> Result<Self, (usize, usize)> {
        if files.len() != self.labels.len() {
            return Err((self.labels.len(), files.len()));
        }
        Ok(Self {
            files: Some(files.into()),
            ..self
        })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Returns whether the dataset contains no images.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Returns the number of channels: 1 for gray, 3 for RGB.
    pub fn channels(&self) -> usize {
        self.images.channels
    }

    /// Returns the height of the images in pixels.
    pub fn height(&self) -> usize {
        self.images.height
    }

    /// Returns the width of the images in pixels.
    pub fn width(&self) -> usize {
        self.images.width
    }

    /// Returns the pixels of image `index`, `[channels, height, width]`, row-major.
    ///
    /// # Panics
    /// Panics if `index >= len()`.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let size = self.images.size();
        let start = self.indices[index] as usize * size;
        &self.images.pixels[start..start + size]
    }

    /// Returns the label of image `index`.
    ///
    /// # Panics
    /// Panics if `index >= len()`.
    pub fn label(&self, index: usize) -> u8 {
        self.labels[self.indices[index] as usize]
    }

    /// Iterates over the labels of all images.
    pub fn labels(&self) -> impl Iterator<Item = u8> {
        self.indices
            .iter()
            .map(|&index| self.labels[index as usize])
    }

    /// Returns the file of each image, or `None` if the images have no files of their own.
    pub fn files(&self) -> Option<impl Iterator<Item = &SourceFile>> {
        let files = self.files.as_deref()?;
        Some(self.indices.iter().map(|&index| &files[index as usize]))
    }

    /// Returns the SHA-256 of the shape, the pixels and the labels of all images, in order.
    pub fn sha256(&self) -> String {
        let shape = [self.len(), self.channels(), self.height(), self.width()];
        let header = shape.map(|size| (size as u64).to_be_bytes()).concat();
        let labels: Vec<u8> = self.labels().collect();
        let pixels = (0..self.len()).map(|index| self.pixels(index));
        sha256_hex(
            [header.as_slice()]
                .into_iter()
                .chain(pixels)
                .chain([labels.as_slice()]),
        )
    }

    /// Returns the indices of the view in the file that it was read from.
    #[cfg(test)]
    pub(crate) fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Returns a view of the images at `indices`, in that order.
    ///
    /// # Panics
    /// Panics if an index is not less than [`len`](Self::len).
    pub fn select(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        Self {
            indices: indices.into_iter().map(|i| self.indices[i]).collect(),
            ..self.clone()
        }
    }

    /// Returns whether all channels of each pixel are equal.
    pub(crate) fn is_gray(&self) -> bool {
        let plane = self.height() * self.width();
        (0..self.len()).all(|index| {
            let (first, others) = self.pixels(index).split_at(plane);
            others.chunks(plane).all(|channel| channel == first)
        })
    }

    /// Converts the images to gray (1 channel) or RGB (3 channels).
    ///
    /// Gray is the luma of ITU-R BT.709: `0.2126 R + 0.7152 G + 0.0722 B`.
    pub fn with_channels(&self, channels: usize) -> Self {
        let plane = self.height() * self.width();
        let mut pixels = Vec::with_capacity(self.len() * channels * plane);
        for index in 0..self.len() {
            match (self.channels(), channels) {
                (3, 1) => {
                    let [red, green, blue] =
                        [0, 1, 2].map(|channel| &self.pixels(index)[channel * plane..][..plane]);
                    pixels.extend((0..plane).map(|at| {
                        let [r, g, b] = [red, green, blue].map(|channel| u32::from(channel[at]));
                        ((2126 * r + 7152 * g + 722 * b) / 10_000) as u8
                    }));
                }
                (1, 3) => pixels.extend(self.pixels(index).repeat(3)),
                _ => return self.clone(),
            }
        }
        Self {
            images: Arc::new(Images {
                channels,
                pixels,
                ..*self.images
            }),
            labels: self.labels().collect(),
            files: self.files().map(|files| files.cloned().collect()),
            indices: (0..self.len() as u32).collect(),
        }
    }

    /// Concatenates this dataset and `other`.
    ///
    /// # Panics
    /// Panics if the image shapes differ.
    pub fn concat(&self, other: &Self) -> Self {
        let shape = |dataset: &Self| (dataset.channels(), dataset.height(), dataset.width());
        assert_eq!(shape(self), shape(other));
        let entries = || {
            (0..self.len())
                .map(|at| (self, at))
                .chain((0..other.len()).map(|at| (other, at)))
        };
        Self {
            images: Arc::new(Images {
                pixels: entries()
                    .flat_map(|(dataset, at)| dataset.pixels(at))
                    .copied()
                    .collect(),
                ..*self.images
            }),
            labels: self.labels().chain(other.labels()).collect(),
            files: match (self.files(), other.files()) {
                (Some(files), Some(others)) => Some(files.chain(others).cloned().collect()),
                _ => None,
            },
            indices: (0..(self.len() + other.len()) as u32).collect(),
        }
    }

    /// Replaces each label by `labels[label]`.
    ///
    /// # Panics
    /// Panics if a label is not less than `labels.len()`.
    pub fn relabeled(&self, labels: &[u8]) -> Self {
        let stored = self.labels.iter().map(|&label| labels[usize::from(label)]);
        Self {
            labels: stored.collect(),
            ..self.clone()
        }
    }

    /// Replaces the label of each image.
    ///
    /// # Panics
    /// Panics if the numbers of images and labels differ.
    pub fn with_labels(&self, labels: impl IntoIterator<Item = u8>) -> Self {
        let labels: Vec<u8> = labels.into_iter().collect();
        assert_eq!(self.len(), labels.len(), "a label for each image");
        let mut stored = self.labels.to_vec();
        for (&index, label) in self.indices.iter().zip(labels) {
            stored[index as usize] = label;
        }
        Self {
            labels: stored.into(),
            ..self.clone()
        }
    }

    /// Returns the mean and the population standard deviation of all pixels, scaled to
    /// `0.0..=1.0`.
    pub fn mean_std(&self) -> (f64, f64) {
        let mut counts = [0u64; 256];
        for index in 0..self.len() {
            for &pixel in self.pixels(index) {
                counts[usize::from(pixel)] += 1;
            }
        }
        let total = counts.iter().sum::<u64>() as f64;
        let moment = |power: i32| {
            let weighted = counts.iter().enumerate();
            let sum: f64 = weighted
                .map(|(value, &count)| (value as f64 / 255.0).powi(power) * count as f64)
                .sum();
            sum / total
        };
        let mean = moment(1);
        (mean, (moment(2) - mean * mean).max(0.0).sqrt())
    }
}

impl Dataset<Sample> for ImageDataset {
    fn get(&self, index: usize) -> Result<Sample, DatasetError> {
        Ok(Sample {
            channels: self.channels(),
            height: self.height(),
            width: self.width(),
            pixels: self.pixels(index).to_vec(),
            label: self.label(index),
        })
    }

    fn len(&self) -> usize {
        self.indices.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns `count` images of 2x3 pixels. All pixels of image `i` are `i`, its label is `i %
    /// 10`.
    pub(crate) fn ramp(count: usize) -> ImageDataset {
        let pixels = (0..count).flat_map(|i| [i as u8; 6]).collect();
        let labels = (0..count).map(|i| (i % 10) as u8).collect();
        let images = Images {
            channels: 1,
            height: 2,
            width: 3,
            pixels,
        };
        ImageDataset::new(images, labels).unwrap()
    }

    #[test]
    fn select_composes() {
        let view = ramp(20).select(10..20).select([9, 0]);
        assert_eq!(view.indices(), [19, 10]);
        assert_eq!(view.pixels(0), [19; 6]);
        assert_eq!((view.label(0), view.label(1)), (9, 0));
    }

    #[test]
    fn converts_channels_and_labels() {
        let gray = ramp(20).select([7, 9]);
        let rgb = gray.with_channels(3);
        assert_eq!(rgb.pixels(1), [9; 18]);
        assert_eq!(rgb.label(1), 9);
        assert!(rgb.is_gray());
        assert_eq!(rgb.with_channels(1).pixels(0), [7; 6]);
        assert_eq!(gray.concat(&gray).pixels(3), [9; 6]);
        let mut labels = [0; 10];
        labels[7] = 3;
        assert_eq!(gray.relabeled(&labels).label(0), 3);
        assert!(gray.with_labels([8, 1]).labels().eq([8, 1]));
    }

    #[test]
    fn views_and_conversions_keep_the_files() {
        let file = |index: usize| SourceFile {
            path: index.to_string(),
            bytes: 0,
            sha256: String::new(),
        };
        let gray = ramp(20).with_files((0..20).map(file).collect()).unwrap();
        let view = gray.select([7, 9]);
        let view = view.concat(&gray.select([3])).with_channels(3);
        let paths: Vec<&str> = view.files().unwrap().map(|file| &*file.path).collect();
        assert_eq!(paths, ["7", "9", "3"]);
        assert!(ramp(2).concat(&gray.select([3])).files().is_none());
        assert_eq!(ramp(2).with_files(vec![]).unwrap_err(), (2, 0));
    }

    #[test]
    fn sha256_depends_on_pixels_labels_and_their_order() {
        let digest = |order: [usize; 2]| ramp(20).select(order).sha256();
        assert_eq!(digest([1, 2]), digest([1, 2]));
        assert_ne!(digest([1, 2]), digest([2, 1]));
        // Other pixels with the same label.
        assert_ne!(digest([1, 2]), digest([11, 2]));
        let labels: Vec<u8> = (1..=10).map(|label| label % 10).collect();
        assert_ne!(ramp(20).relabeled(&labels).sha256(), ramp(20).sha256());
    }

    #[test]
    fn rgb_converts_to_bt709_luma() {
        let images = Images {
            channels: 3,
            height: 1,
            width: 2,
            pixels: vec![200, 0, 100, 0, 50, 255],
        };
        let rgb = ImageDataset::new(images, vec![1]).unwrap();
        assert!(!rgb.is_gray());
        assert_eq!(rgb.with_channels(1).pixels(0), [117, 18]);
    }

    #[test]
    fn mean_std_of_two_values() {
        let view = ramp(256).select([0, 255]);
        assert_eq!(view.mean_std(), (0.5, 0.5));
    }
}
