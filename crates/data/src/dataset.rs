//! Labelled images, and views of them that share one allocation.

use std::fmt;
use std::sync::Arc;

use burn::data::dataset::{Dataset, DatasetError};

use crate::batch::Sample;

/// Images of one size in one allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct Images {
    /// Values of a pixel: 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// `[count, channels, height, width]`, row-major.
    pub pixels: Vec<u8>,
}

impl Images {
    /// Values of one image.
    pub fn size(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// How many images there are.
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

/// Labelled images of one size. A clone or a [`select`](Self::select)ion shares the pixels.
#[derive(Clone, Debug)]
pub struct ImageDataset {
    images: Arc<Images>,
    labels: Arc<[u8]>,
    /// The rows of `images` and `labels` this view shows, in its order.
    rows: Arc<[u32]>,
}

impl ImageDataset {
    /// Pairs images with their labels, or gives both counts back where they differ.
    ///
    /// # Errors
    /// The number of images and that of labels.
    pub fn new(images: Images, labels: Vec<u8>) -> Result<Self, (usize, usize)> {
        let count = images.count();
        if count != labels.len() {
            return Err((count, labels.len()));
        }
        Ok(Self {
            images: Arc::new(images),
            labels: labels.into(),
            // An IDX header stores the count in 32 bits, and no folder holds more pictures.
            rows: (0..count as u32).collect(),
        })
    }

    /// How many images the view shows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the view shows no image.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Values of a pixel: 1 for grey, 3 for red, green and blue.
    pub fn channels(&self) -> usize {
        self.images.channels
    }

    /// Rows of an image.
    pub fn height(&self) -> usize {
        self.images.height
    }

    /// Columns of an image.
    pub fn width(&self) -> usize {
        self.images.width
    }

    /// Pixels of image `index`, `[channels, height, width]`, row-major.
    ///
    /// # Panics
    /// When `index >= len()`, as a slice does.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let size = self.images.size();
        let start = self.rows[index] as usize * size;
        &self.images.pixels[start..start + size]
    }

    /// Class of image `index`.
    ///
    /// # Panics
    /// When `index >= len()`, as a slice does.
    pub fn label(&self, index: usize) -> u8 {
        self.labels[self.rows[index] as usize]
    }

    /// Classes of all images, in their order.
    pub fn labels(&self) -> impl Iterator<Item = u8> {
        self.rows.iter().map(|&row| self.labels[row as usize])
    }

    /// The view's rows in the files it was read from.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// A view of the images at `indices` of this view, in that order.
    ///
    /// # Panics
    /// When an index is not below [`len`](Self::len).
    pub fn select(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        Self {
            rows: indices.into_iter().map(|i| self.rows[i]).collect(),
            ..self.clone()
        }
    }

    /// Whether each pixel has the same value in all channels.
    pub(crate) fn is_grey(&self) -> bool {
        let plane = self.height() * self.width();
        (0..self.len()).all(|index| {
            let (first, others) = self.pixels(index).split_at(plane);
            others.chunks(plane).all(|channel| channel == first)
        })
    }

    /// The same images in grey, for one channel, or with three of them. Grey is weighted as in
    /// ITU-R BT.709.
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
            labels: (0..self.len()).map(|index| self.label(index)).collect(),
            rows: (0..self.len() as u32).collect(),
        }
    }

    /// The same pixels, of images whose channels lie below each other, `height` rows each.
    ///
    /// # Errors
    /// When the images have no whole number of such channels, 1 or 3.
    pub fn with_rows(self, height: usize) -> Result<Self, usize> {
        let channels = match self.images.height.checked_div(height) {
            Some(channels @ (1 | 3)) if channels * height == self.images.height => channels,
            _ => return Err(self.images.height),
        };
        let images = Arc::unwrap_or_clone(self.images);
        Ok(Self {
            images: Arc::new(Images {
                channels,
                height,
                ..images
            }),
            ..self
        })
    }

    /// The images of two datasets of one shape, those of the other last.
    ///
    /// # Panics
    /// When their shapes differ.
    pub fn joined(&self, other: &Self) -> Self {
        let shape = |dataset: &Self| (dataset.channels(), dataset.height(), dataset.width());
        assert_eq!(shape(self), shape(other));
        let both = || {
            (0..self.len())
                .map(|at| (self, at))
                .chain((0..other.len()).map(|at| (other, at)))
        };
        Self {
            images: Arc::new(Images {
                pixels: both()
                    .flat_map(|(dataset, at)| dataset.pixels(at))
                    .copied()
                    .collect(),
                ..*self.images
            }),
            labels: both().map(|(dataset, at)| dataset.label(at)).collect(),
            rows: (0..(self.len() + other.len()) as u32).collect(),
        }
    }

    /// The same images with other labels: `labels[label]` for each.
    ///
    /// # Panics
    /// When a label is not below the number of `labels`.
    pub fn relabelled(&self, labels: &[u8]) -> Self {
        let stored = self.labels.iter().map(|&label| labels[usize::from(label)]);
        Self {
            labels: stored.collect(),
            ..self.clone()
        }
    }

    /// Mean and standard deviation (of the population) of all pixels of the view, in `0.0..=1.0`.
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
        self.rows.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `count` images of 2x3 pixels; image i has all pixels i and label i % 10.
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
    fn a_selection_of_a_selection_shows_the_right_images() {
        let view = ramp(20).select(10..20).select([9, 0]);
        assert_eq!(view.rows(), [19, 10]);
        assert_eq!(view.pixels(0), [19; 6]);
        assert_eq!((view.label(0), view.label(1)), (9, 0));
    }

    #[test]
    fn channels_are_joined_and_repeated() {
        let grey = ramp(20).select([7, 9]);
        let colour = grey.with_channels(3);
        assert_eq!(colour.pixels(1), [9; 18]);
        assert_eq!(colour.label(1), 9);
        assert!(colour.is_grey());
        assert_eq!(colour.with_channels(1).pixels(0), [7; 6]);
        assert_eq!(grey.clone().with_rows(2).unwrap().channels(), 1);
        assert_eq!(grey.clone().with_rows(3).unwrap_err(), 2);
        assert_eq!(grey.joined(&grey).pixels(3), [9; 6]);
        let mut labels = [0; 10];
        labels[7] = 3;
        assert_eq!(grey.relabelled(&labels).label(0), 3);
    }

    #[test]
    fn colour_survives_a_file_and_becomes_the_grey_of_its_brightness() {
        let images = Images {
            channels: 3,
            height: 1,
            width: 2,
            pixels: vec![200, 0, 100, 0, 50, 255],
        };
        let colour = ImageDataset::new(images, vec![1]).unwrap();
        assert!(!colour.is_grey());
        // 0.2126 of red, 0.7152 of green, 0.0722 of blue.
        assert_eq!(colour.with_channels(1).pixels(0), [117, 18]);
        let (file, labels) = crate::idx::write(&colour);
        let read = crate::idx::parse_images(&file).unwrap();
        let read = ImageDataset::new(read, labels[8..].to_vec()).unwrap();
        let read = read.with_rows(1).unwrap();
        assert_eq!((read.channels(), read.pixels(0)), (3, colour.pixels(0)));
    }

    #[test]
    fn moments_of_two_values() {
        let view = ramp(256).select([0, 255]);
        assert_eq!(view.mean_std(), (0.5, 0.5));
    }
}
