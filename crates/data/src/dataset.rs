//! Labelled grey images, and views of them that share one allocation.

use std::sync::Arc;

use burn::data::dataset::{Dataset, DatasetError};

use crate::batch::Sample;
use crate::idx::Images;

/// Labelled grey images of one size. A clone or a [`select`](Self::select)ion shares the pixels.
#[derive(Clone, Debug)]
pub struct ImageDataset {
    images: Arc<Images>,
    labels: Arc<[u8]>,
    /// The rows of `images` and `labels` this view shows, in its order.
    rows: Arc<[u32]>,
}

impl ImageDataset {
    /// Pairs images with their labels, or gives both counts back where they differ.
    pub(crate) fn new(images: Images, labels: Vec<u8>) -> Result<Self, (usize, usize)> {
        let count = images.count();
        if count != labels.len() {
            return Err((count, labels.len()));
        }
        Ok(Self {
            images: Arc::new(images),
            labels: labels.into(),
            // An IDX header stores the count in 32 bits.
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

    /// Rows of an image.
    pub fn height(&self) -> usize {
        self.images.height
    }

    /// Columns of an image.
    pub fn width(&self) -> usize {
        self.images.width
    }

    /// Pixels of image `index`, `[height, width]`, row-major.
    ///
    /// # Panics
    /// When `index >= len()`, as a slice does.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let size = self.images.height * self.images.width;
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
    fn moments_of_two_values() {
        let view = ramp(256).select([0, 255]);
        assert_eq!(view.mean_std(), (0.5, 0.5));
    }
}
