//! Labeled images, and views of them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use burn::data::dataset::Dataset;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::picture::Picture;
use crate::picture_store::{PictureStore, PixelError, has_equal_channels};
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

    /// Returns the shape of an image, `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.pixels.len() / self.size()
    }

    /// Returns the images with rows and columns exchanged.
    pub(crate) fn transposed(&self) -> Self {
        let plane = self.height * self.width;
        let planes = self.pixels.chunks_exact(plane);
        let pixels = planes.flat_map(|plane| {
            (0..self.width)
                .flat_map(move |column| plane.iter().skip(column).step_by(self.width).copied())
        });
        Self {
            channels: self.channels,
            height: self.width,
            width: self.height,
            pixels: pixels.collect(),
        }
    }

    /// Returns the pixels of an image.
    fn image(&self, index: usize) -> &[u8] {
        let size = self.size();
        &self.pixels[index * size..][..size]
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
    images: Arc<Storage>,
    /// Number of channels of the view; images with another number are converted when they are read.
    channels: usize,
    labels: Arc<[u8]>,
    /// Indices into `images` and `labels`, in the order of the view.
    indices: Arc<[u32]>,
}

/// The images of a dataset.
#[derive(Debug)]
enum Storage {
    Memory(Images),
    Pictures(PictureStore),
}

impl ImageDataset {
    /// Creates a dataset from images and their labels.
    ///
    /// # Errors
    /// Returns the numbers of images and labels if they differ.
    pub fn new(images: Images, labels: Vec<u8>) -> Result<Self, (usize, usize)> {
        let (count, channels) = (images.count(), images.channels);
        Self::from_storage(Storage::Memory(images), count, channels, labels)
    }

    /// Creates a dataset from decoded pictures and their labels. The images are RGB if a picture has
    /// color.
    ///
    /// # Errors
    /// Returns the numbers of pictures and labels if they differ.
    pub fn from_pictures(store: PictureStore, labels: Vec<u8>) -> Result<Self, (usize, usize)> {
        let pictures = store.pictures();
        let channels = pictures.iter().map(|picture| picture.channels).max();
        let (count, channels) = (pictures.len(), channels.unwrap_or(1));
        Self::from_storage(Storage::Pictures(store), count, channels, labels)
    }

    fn from_storage(
        images: Storage,
        count: usize,
        channels: usize,
        labels: Vec<u8>,
    ) -> Result<Self, (usize, usize)> {
        if count != labels.len() {
            return Err((count, labels.len()));
        }
        Ok(Self {
            images: Arc::new(images),
            channels,
            labels: labels.into(),
            // The count fits into `u32`: IDX headers limit it, and folders do not hold more files.
            indices: (0..count as u32).collect(),
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
        self.channels
    }

    /// Returns the height of the images in pixels.
    pub fn height(&self) -> usize {
        self.images.size()[0]
    }

    /// Returns the width of the images in pixels.
    pub fn width(&self) -> usize {
        self.images.size()[1]
    }

    /// Returns the pixels of image `index`, `[channels, height, width]`, row-major.
    ///
    /// # Errors
    /// Returns an error if the file of decoded pictures cannot be read.
    ///
    /// # Panics
    /// Panics if `index >= len()`.
    pub fn pixels(&self, index: usize) -> Result<Cow<'_, [u8]>, PixelError> {
        let pixels = self.images.pixels(self.indices[index] as usize)?;
        let [height, width] = self.images.size();
        Ok(match (pixels.len() / (height * width), self.channels) {
            (3, 1) => luma(&pixels).into(),
            (1, 3) => pixels.repeat(3).into(),
            _ => pixels,
        })
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
        let Storage::Pictures(store) = &*self.images else {
            return None;
        };
        let indices = self.indices.iter();
        Some(indices.map(|&index| &store.pictures()[index as usize].file))
    }

    /// Returns the SHA-256 of the shape, the pixels and the labels of all images, in order.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub fn sha256(&self) -> Result<String, PixelError> {
        let mut digest = Sha256::new();
        for size in [self.len(), self.channels(), self.height(), self.width()] {
            digest.update((size as u64).to_be_bytes());
        }
        for index in 0..self.len() {
            digest.update(self.pixels(index)?);
        }
        digest.update(self.labels().collect::<Vec<u8>>());
        Ok(hex(&digest.finalize()))
    }

    /// Returns the indices of the view in the file that it was read from.
    #[cfg(test)]
    pub(crate) fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Returns the images with other labels.
    #[cfg(test)]
    pub(crate) fn relabeled_each(&self, labels: Vec<u8>) -> Self {
        Self {
            labels: labels.into(),
            ..self.clone()
        }
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

    /// Counts the images with color.
    pub(crate) fn count_with_color(&self) -> usize {
        let indices = self.indices.iter();
        indices
            .filter(|&&index| !self.images.is_gray(index as usize))
            .count()
    }

    /// Returns a view of the images in gray (1 channel) or RGB (3 channels).
    ///
    /// Gray is the luma of ITU-R BT.709: `0.2126 R + 0.7152 G + 0.0722 B`.
    pub fn with_channels(&self, channels: usize) -> Self {
        Self {
            channels,
            ..self.clone()
        }
    }

    /// Returns the images scaled to fit a height and width, on the mean color of their edges.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub fn resized(&self, size: [usize; 2]) -> Result<Self, PixelError> {
        let [height, width] = size;
        if [self.height(), self.width()] == size {
            return Ok(self.clone());
        }
        let shape = [self.channels, self.height(), self.width()];
        let scaled = (0..self.len()).into_par_iter().map(|index| {
            let picture = Picture::of_pixels(&self.pixels(index)?, shape);
            Ok(picture.fit(height, width).pixels(self.channels))
        });
        let images = Images {
            channels: self.channels,
            height,
            width,
            pixels: scaled.collect::<Result<Vec<_>, PixelError>>()?.concat(),
        };
        let labels = self.labels().collect();
        let resized =
            Self::from_storage(Storage::Memory(images), self.len(), self.channels, labels);
        Ok(resized.expect("a label for each image"))
    }

    /// Returns these images followed by others of the same storage; `None` if they have another.
    pub(crate) fn joined(&self, other: &Self) -> Option<Self> {
        let is_same =
            Arc::ptr_eq(&self.images, &other.images) && Arc::ptr_eq(&self.labels, &other.labels);
        is_same.then(|| Self {
            indices: self
                .indices
                .iter()
                .chain(&*other.indices)
                .copied()
                .collect(),
            ..self.clone()
        })
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

    /// Returns the mean and the population standard deviation of all pixels, scaled to
    /// `0.0..=1.0`.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub fn mean_std(&self) -> Result<(f64, f64), PixelError> {
        let counts = self.histograms()?.into_iter().reduce(sum);
        Ok(mean_std(&counts.unwrap_or([0; 256])))
    }

    /// Returns the mean and the population standard deviation of the pixels of each channel, scaled to
    /// `0.0..=1.0`.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub fn channel_mean_std(&self) -> Result<Vec<(f64, f64)>, PixelError> {
        Ok(self.histograms()?.iter().map(mean_std).collect())
    }

    /// Counts the pixels of each value in each channel.
    fn histograms(&self) -> Result<Vec<Histogram>, PixelError> {
        let images = (0..self.len()).into_par_iter();
        let plane = self.height() * self.width();
        let none = || vec![[0; 256]; self.channels];
        let counts = images.try_fold(none, |mut counts, index| {
            let pixels = self.pixels(index)?;
            for (counts, channel) in counts.iter_mut().zip(pixels.chunks(plane)) {
                for &pixel in channel {
                    counts[usize::from(pixel)] += 1;
                }
            }
            Ok(counts)
        });
        counts.try_reduce(none, |a, b| {
            Ok(a.into_iter().zip(b).map(|(a, b)| sum(a, b)).collect())
        })
    }
}

/// The number of pixels of each value.
type Histogram = [u64; 256];

fn sum(a: Histogram, b: Histogram) -> Histogram {
    std::array::from_fn(|value| a[value] + b[value])
}

/// Returns the mean and the population standard deviation of pixels, scaled to `0.0..=1.0`.
fn mean_std(counts: &Histogram) -> (f64, f64) {
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

impl Storage {
    /// Returns the height and width of the images in pixels.
    fn size(&self) -> [usize; 2] {
        match self {
            Self::Memory(images) => [images.height, images.width],
            Self::Pictures(store) => store.size(),
        }
    }

    /// Returns the stored pixels of an image.
    fn pixels(&self, index: usize) -> Result<Cow<'_, [u8]>, PixelError> {
        match self {
            Self::Memory(images) => Ok(Cow::Borrowed(images.image(index))),
            Self::Pictures(store) => store.pixels(index),
        }
    }

    /// Returns whether an image has no color.
    fn is_gray(&self, index: usize) -> bool {
        match self {
            Self::Memory(images) => has_equal_channels(images.image(index), images.channels),
            Self::Pictures(store) => store.pictures()[index].channels == 1,
        }
    }
}

/// Converts an RGB image to gray.
fn luma(pixels: &[u8]) -> Vec<u8> {
    let plane = pixels.len() / 3;
    let (red, others) = pixels.split_at(plane);
    let (green, blue) = others.split_at(plane);
    let channels = red.iter().zip(green).zip(blue);
    let luma = channels.map(|((&red, &green), &blue)| {
        let [red, green, blue] = [red, green, blue].map(u32::from);
        ((2126 * red + 7152 * green + 722 * blue) / 10_000) as u8
    });
    luma.collect()
}

impl Dataset<Sample, PixelError> for ImageDataset {
    fn get(&self, index: usize) -> Result<Sample, PixelError> {
        Ok(Sample {
            channels: self.channels(),
            height: self.height(),
            width: self.width(),
            pixels: self.pixels(index)?.into_owned(),
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
    use crate::picture_store::tests::picture;

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
        assert_eq!(*view.pixels(0).unwrap(), [19; 6]);
        assert_eq!((view.label(0), view.label(1)), (9, 0));
    }

    #[test]
    fn converts_channels_and_labels() {
        let gray = ramp(20).select([7, 9]);
        let rgb = gray.with_channels(3);
        assert_eq!(*rgb.pixels(1).unwrap(), [9; 18]);
        assert_eq!(rgb.label(1), 9);
        assert_eq!(rgb.count_with_color(), 0);
        assert_eq!(*rgb.with_channels(1).pixels(0).unwrap(), [7; 6]);
        let mut labels = [0; 10];
        labels[7] = 3;
        assert_eq!(gray.relabeled(&labels).label(0), 3);
    }

    #[test]
    fn views_and_conversions_keep_the_files() {
        let mut store = PictureStore::in_memory([1, 2]);
        for shade in 0..20 {
            store.append(picture(shade, &[shade; 6])).unwrap();
        }
        store.append(picture(20, &[1, 2, 3, 4, 5, 6])).unwrap();
        let all = ImageDataset::from_pictures(store, vec![0; 21]).unwrap();
        assert_eq!(all.channels(), 3);
        assert!(all.count_with_color() > 0);
        let view = all.select([7, 9, 3]);
        assert_eq!(view.count_with_color(), 0);
        assert_eq!(*view.pixels(0).unwrap(), [7; 6]);
        let view = view.with_channels(1);
        let paths: Vec<&str> = view.files().unwrap().map(|file| &*file.path).collect();
        assert_eq!(paths, ["7", "9", "3"]);
        assert_eq!(*view.pixels(2).unwrap(), [3; 2]);
        assert!(ramp(2).files().is_none());
        let store = PictureStore::in_memory([1, 2]);
        let error = ImageDataset::from_pictures(store, vec![0; 2]).unwrap_err();
        assert_eq!(error, (0, 2));
    }

    #[test]
    fn sha256_depends_on_pixels_labels_and_their_order() {
        let digest = |order: [usize; 2]| ramp(20).select(order).sha256().unwrap();
        assert_eq!(digest([1, 2]), digest([1, 2]));
        assert_ne!(digest([1, 2]), digest([2, 1]));
        // Other pixels with the same label.
        assert_ne!(digest([1, 2]), digest([11, 2]));
        let labels: Vec<u8> = (1..=10).map(|label| label % 10).collect();
        let relabeled = ramp(20).relabeled(&labels).sha256().unwrap();
        assert_ne!(relabeled, ramp(20).sha256().unwrap());
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
        assert!(rgb.count_with_color() > 0);
        assert_eq!(*rgb.with_channels(1).pixels(0).unwrap(), [117, 18]);
    }

    #[test]
    fn mean_std_of_two_values() {
        let view = ramp(256).select([0, 255]);
        assert_eq!(view.mean_std().unwrap(), (0.5, 0.5));
        assert_eq!(view.channel_mean_std().unwrap(), [(0.5, 0.5)]);
    }

    #[test]
    fn mean_std_of_each_channel() {
        let images = Images {
            channels: 3,
            height: 1,
            width: 2,
            pixels: vec![0, 255, 51, 51, 0, 102],
        };
        let rgb = ImageDataset::new(images, vec![1]).unwrap();
        let expected = [(0.5, 0.5), (0.2, 0.0), (0.2, 0.2)];
        let found = rgb.channel_mean_std().unwrap();
        for ((mean, std), (expected_mean, expected_std)) in found.iter().zip(expected) {
            // The variance is a difference of two sums.
            assert!((mean - expected_mean).abs() < 1e-12, "{found:?}");
            assert!((std - expected_std).abs() < 1e-7, "{found:?}");
        }
        let (mean, std) = rgb.mean_std().unwrap();
        let mean_square = (1.0 + 2.0 * 0.04 + 0.16) / 6.0;
        assert!((mean - 0.3).abs() < 1e-12, "{mean}");
        assert!((std * std - (mean_square - 0.09)).abs() < 1e-12, "{std}");
    }
}
