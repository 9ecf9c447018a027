//! Corruptions of test images, which measure the robustness of a network.
//!
//! They follow MNIST-C (Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019) and CIFAR-10-C
//! (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019),
//! with strengths of their own, which are relative to the size of the image.

use std::f32::consts::TAU;
use std::fmt;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageError, ImageFormat};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::color_jitter::ColorJitter;
use crate::picture::to_dynamic;
use crate::plane::{Plane, max, min};
use crate::preparation::Preparation;
use crate::random::generator;
use crate::rectangle::Rectangle;
use crate::sample::Sample;
use crate::warp::{Outside, Warp};

/// Number of strengths of a corruption.
pub const STRENGTHS: usize = 5;
/// Minimum height and width of an image: in smaller ones, several strengths have the same effect.
pub const MIN_SIDE: usize = 8;
/// Gray value of the square that occludes a part of an image.
const OCCLUSION: u8 = 128;

/// A corruption of images. Its direction, sign, place or noise is random for each image, and the same at each strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// Translation in a random direction.
    Shift,
    /// Rotation to the left or to the right.
    Rotation,
    /// Enlargement or reduction.
    Scale,
    /// Gaussian blur.
    Blur,
    /// Gaussian noise, independent for each value.
    Noise,
    /// Reduction of the contrast around the mean luma.
    Contrast,
    /// Dilation or erosion of strokes.
    StrokeWidth,
    /// A gray square within the image.
    Occlusion,
    /// JPEG compression, without subsampling of colors.
    Jpeg,
}

/// The error of a corruption.
#[derive(Debug, Error)]
#[error("cannot compress an image of {height}x{width} pixels as JPEG")]
pub struct CorruptionError {
    height: usize,
    width: usize,
    source: ImageError,
}

impl Corruption {
    const ALL: [Self; 9] = [
        Self::Shift,
        Self::Rotation,
        Self::Scale,
        Self::Blur,
        Self::Noise,
        Self::Contrast,
        Self::StrokeWidth,
        Self::Occlusion,
        Self::Jpeg,
    ];

    /// Iterates over the corruptions of images that were prepared in this way: only handwriting has strokes.
    pub fn all(preparation: Preparation) -> impl Iterator<Item = Self> {
        let has_strokes = preparation == Preparation::Handwriting;
        let all = Self::ALL.into_iter();
        all.filter(move |corruption| has_strokes || *corruption != Self::StrokeWidth)
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shift => "shift",
            Self::Rotation => "rotation",
            Self::Scale => "scale",
            Self::Blur => "blur",
            Self::Noise => "noise",
            Self::Contrast => "contrast",
            Self::StrokeWidth => "stroke-width",
            Self::Occlusion => "occlusion",
            Self::Jpeg => "jpeg",
        }
    }

    /// Returns the parameter of the corruption at strengths 1 to 5.
    pub fn levels(self) -> [f32; STRENGTHS] {
        match self {
            // Distance, as a fraction of the height and width.
            Self::Shift => [0.04, 0.08, 0.12, 0.16, 0.20],
            // Degrees.
            Self::Rotation => [10.0, 20.0, 30.0, 40.0, 50.0],
            // Factor of the size, or its reciprocal.
            Self::Scale => [1.1, 1.2, 1.3, 1.4, 1.5],
            // Standard deviation, as a fraction of the longer side.
            Self::Blur => [0.015, 0.025, 0.035, 0.045, 0.055],
            // Standard deviation, as a fraction of the range of the pixels: as in ImageNet-C.
            Self::Noise => [0.08, 0.12, 0.18, 0.26, 0.38],
            // Factor of the contrast: as in CIFAR-10-C.
            Self::Contrast => [0.75, 0.5, 0.4, 0.3, 0.15],
            // Change of the radius, as a fraction of the longer side. Erosion has half of it: strokes must remain.
            Self::StrokeWidth => [0.01, 0.02, 0.03, 0.04, 0.05],
            // Side of the square, as a fraction of the height and width.
            Self::Occlusion => [0.12, 0.19, 0.26, 0.33, 0.40],
            // Quality.
            Self::Jpeg => [60.0, 40.0, 25.0, 15.0, 7.0],
        }
    }

    /// Corrupts image `index` of a dataset with a strength from 1 to 5.
    ///
    /// The result depends only on the image and on `(strength, seed, index)`. Pixels from outside of a picture are its
    /// edge pixels; outside of handwriting and of objects, which have a dark background, they are black.
    ///
    /// # Errors
    /// Returns an error if the image is too large for JPEG.
    ///
    /// # Panics
    /// Panics if `strength` is not 1 to 5.
    pub fn apply(
        self,
        sample: &mut Sample,
        strength: usize,
        preparation: Preparation,
        seed: u64,
        index: usize,
    ) -> Result<(), CorruptionError> {
        let level = self.levels()[strength - 1];
        let outside = match preparation {
            Preparation::Handwriting | Preparation::Object => Outside::Black,
            Preparation::Picture => Outside::Edge,
        };
        // Noise needs more numbers than an image has in the stream of its dataset, so each image has a stream.
        let random = &mut generator(b"corruptions of images...", seed, index as u64, 0);
        let side = sample.height.max(sample.width) as f32;
        match self {
            Self::Shift => shift(sample, level, random, outside),
            Self::Rotation => rotate(sample, sign(random) * level, outside),
            Self::Scale => scale(sample, level.powf(sign(random)), outside),
            Self::Blur => each_plane(sample, |plane| blurred(plane, level * side)),
            Self::Noise => add_noise(sample, 255.0 * level, random),
            Self::Contrast => reduce_contrast(sample, level),
            Self::StrokeWidth => {
                let change = match sign(random) > 0.0 {
                    true => level * side,
                    false => -0.5 * level * side,
                };
                each_plane(sample, |plane| thickened(plane, change));
            }
            Self::Occlusion => occlude(sample, level, random),
            Self::Jpeg => compress(sample, level as u8)?,
        }
        Ok(())
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Corruption {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Draws 1 or -1.
fn sign(random: &mut ChaCha8Rng) -> f32 {
    match random.random::<bool>() {
        true => 1.0,
        false => -1.0,
    }
}

/// Applies an affine map from the result to the source, relative to the center of the image.
fn warp(sample: &mut Sample, affine: [[f32; 3]; 2], outside: Outside) {
    let elastic = None;
    sample.pixels = Warp { affine, elastic }.apply(sample, outside);
}

fn shift(sample: &mut Sample, distance: f32, random: &mut ChaCha8Rng, outside: Outside) {
    let (sin, cos) = (TAU * random.random::<f32>()).sin_cos();
    let right = distance * cos * sample.width as f32;
    let down = distance * sin * sample.height as f32;
    warp(sample, [[1.0, 0.0, -right], [0.0, 1.0, -down]], outside);
}

fn rotate(sample: &mut Sample, degrees: f32, outside: Outside) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    warp(sample, [[cos, sin, 0.0], [-sin, cos, 0.0]], outside);
}

fn scale(sample: &mut Sample, factor: f32, outside: Outside) {
    let inverse = factor.recip();
    warp(sample, [[inverse, 0.0, 0.0], [0.0, inverse, 0.0]], outside);
}

/// Replaces each channel.
fn each_plane(sample: &mut Sample, change: impl Fn(Plane) -> Plane) {
    let &mut Sample { height, width, .. } = sample;
    for pixels in sample.pixels.chunks_exact_mut(height * width) {
        let plane = change(Plane {
            width,
            height,
            values: pixels.iter().copied().map(f32::from).collect(),
        });
        for (pixel, value) in pixels.iter_mut().zip(plane.values) {
            *pixel = value.round() as u8;
        }
    }
}

/// Blurs with a Gaussian of three standard deviations to each side. Edge pixels continue beyond the edge.
fn blurred(plane: Plane, deviation: f32) -> Plane {
    let radius = (3.0 * deviation).ceil() as usize;
    let weight = |at: usize| (-0.5 * ((at as f32 - radius as f32) / deviation).powi(2)).exp();
    let mut weights: Vec<f32> = (0..=2 * radius).map(weight).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    // Each pass blurs the rows and transposes, so two passes blur rows and columns.
    let pass = |plane: &Plane| {
        let Plane { width, height, .. } = *plane;
        let mut values = vec![0.0; plane.values.len()];
        let mut padded = vec![0.0; width + 2 * radius];
        for (y, row) in plane.values.chunks_exact(width).enumerate() {
            for (at, value) in padded.iter_mut().enumerate() {
                *value = row[at.saturating_sub(radius).min(width - 1)];
            }
            for (x, window) in padded.windows(weights.len()).enumerate() {
                values[x * height + y] = window.iter().zip(&weights).map(|(v, w)| v * w).sum();
            }
        }
        Plane {
            width: height,
            height: width,
            values,
        }
    };
    pass(&pass(&plane))
}

fn add_noise(sample: &mut Sample, deviation: f32, random: &mut ChaCha8Rng) {
    // Box and Muller (1958): two normal numbers from two uniform ones.
    for pixels in sample.pixels.chunks_mut(2) {
        let radius = (-2.0 * (1.0 - random.random::<f32>()).ln()).sqrt();
        let (sin, cos) = (TAU * random.random::<f32>()).sin_cos();
        for (pixel, normal) in pixels.iter_mut().zip([radius * sin, radius * cos]) {
            // The conversion saturates.
            *pixel = (f32::from(*pixel) + deviation * normal).round() as u8;
        }
    }
}

fn reduce_contrast(sample: &mut Sample, factor: f32) {
    let jitter = ColorJitter {
        contrast: factor,
        ..ColorJitter::IDENTITY
    };
    jitter.apply(sample);
}

/// Grayscale dilation (`change` > 0) or erosion with a square structuring element of radius `|change|` pixels. A fractional
/// radius interpolates linearly between the neighboring integers.
fn thickened(plane: Plane, change: f32) -> Plane {
    let reduce = if change > 0.0 { max } else { min };
    let radius = change.abs() as usize;
    let part = change.abs().fract();
    let more = plane.filtered(radius + 1, reduce);
    let less = match radius {
        0 => plane,
        _ => plane.filtered(radius, reduce),
    };
    let pairs = less.values.iter().zip(&more.values);
    Plane {
        values: pairs.map(|(l, m)| l + part * (m - l)).collect(),
        ..less
    }
}

fn occlude(sample: &mut Sample, part: f32, random: &mut ChaCha8Rng) {
    let mut range = |size: usize| {
        let length = ((part * size as f32).round() as usize).clamp(1, size);
        let start = (random.random::<f32>() * (size - length) as f32).round() as usize;
        start..start + length
    };
    let (rows, columns) = (range(sample.height), range(sample.width));
    Rectangle { rows, columns }.fill(sample, [OCCLUSION; 3]);
}

/// Encodes an image as JPEG, and decodes it.
fn compress(sample: &mut Sample, quality: u8) -> Result<(), CorruptionError> {
    let &mut Sample {
        channels,
        height,
        width,
        ..
    } = sample;
    let picture = to_dynamic(&sample.pixels, channels, height, width);
    let compressed = through_jpeg(&picture, quality).map_err(|source| CorruptionError {
        height,
        width,
        source,
    })?;
    sample.pixels = match channels {
        1 => compressed.into_luma8().into_raw(),
        _ => {
            let interleaved = compressed.into_rgb8().into_raw();
            let channel = |channel: usize| interleaved.iter().skip(channel).step_by(3).copied();
            (0..3).flat_map(channel).collect()
        }
    };
    Ok(())
}

fn through_jpeg(picture: &DynamicImage, quality: u8) -> Result<DynamicImage, ImageError> {
    let mut file = Vec::new();
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut file, quality))?;
    image::load_from_memory_with_format(&file, ImageFormat::Jpeg)
}
