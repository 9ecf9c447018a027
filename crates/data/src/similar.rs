//! Similar images: copies with another size, compression or brightness.
//!
//! Candidates share a row of a difference hash, which tells where the brightness rises from left to right (Krawetz, "Kind
//! of like that", 2013). Then the images themselves are compared, on a coarse grid.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::image_dataset::ImageDataset;
use crate::picture_store::PixelError;

/// Rows and columns of the grid.
const GRID: usize = 16;
/// Rows and columns of the grid of the hash.
const HASH_GRID: usize = 8;
/// Rows and columns of the grid of colors.
const COLORS: usize = 4;
/// Largest number of different bits of the hashes of 64 bits of similar images.
const MAX_DIFFERENT_BITS: u32 = 14;
const MAX_DIFFERENT_BITS_GRAY: u32 = 4;
/// Least standard deviation of the brightness: plain images resemble each other by chance.
const MIN_CONTRAST: f32 = 12.0;
/// Least correlation of the brightness of images with color, of which some 97 of 100 pairs in CIFAR-10 show the same picture.
const MIN_CORRELATION: f32 = 0.96;
/// Least correlation of gray images: drawn strokes resemble each other more.
const MIN_GRAY_CORRELATION: f32 = 0.995;
/// Largest mean difference of the colors.
const MAX_COLOR_DIFFERENCE: f32 = 16.0;
/// A row of the hash that more images share is not used to find candidates: it says little, and all pairs are compared.
const MAX_BUCKET: usize = 20_000;

/// A coarse copy of an image.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    /// A row of the grid in each byte, a bit for each cell.
    hash: u64,
    /// Brightness of the cells, with mean 0 and norm 1; empty for a plain image.
    brightness: Vec<f32>,
    /// Red, green and blue of the cells of the coarser grid.
    colors: [[f32; 3]; COLORS * COLORS],
    is_gray: bool,
}

/// Two similar images by their indices, the first one smaller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimilarPair {
    /// Index of one image.
    pub first: usize,
    /// Index of the other one.
    pub second: usize,
    /// Correlation of their brightness, up to 1.
    pub correlation: f32,
}

/// Computes the fingerprints of images.
///
/// # Errors
/// Returns an error if an image cannot be read.
pub fn fingerprints(images: &ImageDataset) -> Result<Vec<Fingerprint>, PixelError> {
    let shape = [images.channels(), images.height(), images.width()];
    let indices = (0..images.len()).into_par_iter();
    indices
        .map(|index| Ok(Fingerprint::of(&images.pixels(index)?, shape)))
        .collect()
}

/// Finds the pairs of similar images, the most similar first.
pub fn similar_pairs(fingerprints: &[Fingerprint]) -> Vec<SimilarPair> {
    let mut buckets: HashMap<(usize, u8), Vec<u32>> = HashMap::new();
    for (index, fingerprint) in fingerprints.iter().enumerate() {
        if !fingerprint.brightness.is_empty() {
            for (row, bits) in fingerprint.hash.to_le_bytes().iter().enumerate() {
                // Plain rows have no rise.
                if *bits == 0 {
                    continue;
                }
                buckets.entry((row, *bits)).or_default().push(index as u32);
            }
        }
    }
    let buckets: Vec<((usize, u8), Vec<u32>)> = buckets.into_iter().collect();
    let pairs = buckets
        .par_iter()
        .filter(|(_, images)| (2..=MAX_BUCKET).contains(&images.len()));
    let pairs = pairs.flat_map_iter(|((row, _), images)| {
        let firsts = images.iter().enumerate();
        firsts.flat_map(move |(at, &first)| {
            let compare = move |&second: &u32| {
                let (a, b) = (
                    &fingerprints[first as usize],
                    &fingerprints[second as usize],
                );
                // A pair is found by the first row that is equal.
                if a.first_equal_row(b) != Some(*row) {
                    return None;
                }
                Some(SimilarPair {
                    first: first as usize,
                    second: second as usize,
                    correlation: a.correlation(b)?,
                })
            };
            images[at + 1..].iter().filter_map(compare)
        })
    });
    let mut pairs: Vec<SimilarPair> = pairs.collect();
    pairs.sort_by(|a, b| {
        b.correlation
            .total_cmp(&a.correlation)
            .then((a.first, a.second).cmp(&(b.first, b.second)))
    });
    pairs
}

impl Fingerprint {
    fn of(pixels: &[u8], [channels, height, width]: [usize; 3]) -> Self {
        let plane = height * width;
        let channel = |channel: usize| &pixels[channel.min(channels - 1) * plane..][..plane];
        let planes = [0, 1, 2].map(channel);
        let grids = planes.map(|plane| cells(plane, height, width, GRID));
        let mut brightness: Vec<f32> = (0..GRID * GRID)
            .map(|cell| 0.299 * grids[0][cell] + 0.587 * grids[1][cell] + 0.114 * grids[2][cell])
            .collect();
        let luma: Vec<u8> = brightness.iter().map(|value| *value as u8).collect();
        let rows = cells(&luma, GRID, GRID, HASH_GRID);
        let mut hash = 0u64;
        for row in 0..HASH_GRID {
            for column in 0..HASH_GRID {
                // The last column is compared with the first.
                let next = rows[row * HASH_GRID + (column + 1) % HASH_GRID];
                let rises = next > rows[row * HASH_GRID + column];
                hash |= u64::from(rises) << (row * HASH_GRID + column);
            }
        }
        let mean = brightness.iter().sum::<f32>() / brightness.len() as f32;
        brightness.iter_mut().for_each(|value| *value -= mean);
        let norm = brightness
            .iter()
            .map(|value| value * value)
            .sum::<f32>()
            .sqrt();
        if norm / (GRID as f32) < MIN_CONTRAST {
            brightness.clear();
        }
        brightness.iter_mut().for_each(|value| *value /= norm);
        let coarse = planes.map(|plane| cells(plane, height, width, COLORS));
        let colors = std::array::from_fn(|cell| [0, 1, 2].map(|channel| coarse[channel][cell]));
        Self {
            hash,
            brightness,
            colors,
            is_gray: channels == 1 || (planes[0] == planes[1] && planes[0] == planes[2]),
        }
    }

    /// Returns the first row in which two hashes are equal and have a rise.
    fn first_equal_row(&self, other: &Self) -> Option<usize> {
        let rows = self
            .hash
            .to_le_bytes()
            .into_iter()
            .zip(other.hash.to_le_bytes());
        rows.enumerate().position(|(_, (a, b))| a == b && a != 0)
    }

    /// Returns the correlation with another image if both are similar.
    fn correlation(&self, other: &Self) -> Option<f32> {
        let (bits, least) = match self.is_gray && other.is_gray {
            true => (MAX_DIFFERENT_BITS_GRAY, MIN_GRAY_CORRELATION),
            false => (MAX_DIFFERENT_BITS, MIN_CORRELATION),
        };
        if (self.hash ^ other.hash).count_ones() > bits {
            return None;
        }
        let products = self
            .brightness
            .iter()
            .zip(&other.brightness)
            .map(|(a, b)| a * b);
        let correlation: f32 = products.sum();
        let differences = self
            .colors
            .as_flattened()
            .iter()
            .zip(other.colors.as_flattened());
        let difference =
            differences.map(|(a, b)| (a - b).abs()).sum::<f32>() / (3 * COLORS * COLORS) as f32;
        (correlation >= least && difference <= MAX_COLOR_DIFFERENCE).then_some(correlation.min(1.0))
    }
}

/// Returns the means of the cells of a square grid. An image smaller than the grid has cells of one pixel that repeat.
fn cells(plane: &[u8], height: usize, width: usize, grid: usize) -> Vec<f32> {
    let range = |cell: usize, size: usize| {
        let start = cell * size / grid;
        start..((cell + 1) * size / grid).max(start + 1)
    };
    let mut means = Vec::with_capacity(grid * grid);
    for row in 0..grid {
        for column in 0..grid {
            let (rows, columns) = (range(row, height), range(column, width));
            let count = rows.len() * columns.len();
            let sums = rows.map(|row| {
                let pixels = &plane[row * width..][columns.clone()];
                pixels.iter().map(|&pixel| u32::from(pixel)).sum::<u32>()
            });
            means.push(sums.sum::<u32>() as f32 / count as f32);
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_dataset::Images;
    use crate::random::generator;

    /// Returns smooth random images, each followed by a darker, noisy copy.
    fn pairs_of_copies(count: usize, side: usize) -> ImageDataset {
        use rand::Rng as _;
        let mut pixels = Vec::new();
        for image in 0..count {
            let mut rng = generator(b"tests of similar images ", 7, 0, image);
            let waves: Vec<[f32; 4]> = (0..6)
                .map(|_| std::array::from_fn(|_| rng.random_range(-1.0..1.0)))
                .collect();
            let value = |row: usize, column: usize| {
                let (y, x) = (row as f32 / side as f32, column as f32 / side as f32);
                let sum: f32 = waves
                    .iter()
                    .map(|[a, b, c, d]| a * (9.0 * b * x + 9.0 * c * y + 6.0 * d).sin())
                    .sum();
                (128.0 + 50.0 * sum).clamp(0.0, 255.0)
            };
            for copy in 0..2 {
                for channel in 0..3 {
                    for row in 0..side {
                        for column in 0..side {
                            let noise = match copy {
                                1 => rng.random_range(-6.0..6.0) - 8.0,
                                _ => 0.0,
                            };
                            let value = value(row, column) + noise + 12.0 * channel as f32;
                            pixels.push(value.clamp(0.0, 255.0) as u8);
                        }
                    }
                }
            }
        }
        let images = Images {
            channels: 3,
            height: side,
            width: side,
            pixels,
        };
        ImageDataset::new(images, vec![0; 2 * count]).unwrap()
    }

    #[test]
    fn copies_are_found_and_others_are_not() {
        let images = pairs_of_copies(300, 32);
        let pairs = similar_pairs(&fingerprints(&images).unwrap());
        let right = pairs
            .iter()
            .filter(|pair| pair.first / 2 == pair.second / 2)
            .count();
        assert!(right >= 297, "{right}");
        assert_eq!(pairs.len(), right);
    }

    #[test]
    fn plain_images_are_not_similar() {
        let images = Images {
            channels: 1,
            height: 8,
            width: 8,
            pixels: vec![90; 3 * 64],
        };
        let images = ImageDataset::new(images, vec![0; 3]).unwrap();
        assert_eq!(similar_pairs(&fingerprints(&images).unwrap()), []);
    }
}
