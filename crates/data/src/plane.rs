//! Brightness by pixel, and what is computed of it.

use image::{GrayImage, imageops};

use crate::picture::is_edge;

/// Longer sides are shrunk to this: a digit that fills a tenth of the picture still has more pixels
/// than MNIST's.
const MAX_SIDE: u32 = 256;

/// Brightness of each pixel, row-major.
#[derive(Clone)]
pub(crate) struct Plane {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) values: Vec<f32>,
}

impl Plane {
    /// The picture, shrunk if it is large.
    pub(crate) fn of(picture: &GrayImage) -> Self {
        let side = picture.width().max(picture.height());
        let values = |picture: &GrayImage| picture.as_raw().iter().map(|&v| f32::from(v)).collect();
        if side <= MAX_SIDE {
            return Self {
                width: picture.width() as usize,
                height: picture.height() as usize,
                values: values(picture),
            };
        }
        let scaled = |size: u32| {
            let scaled = (u64::from(size) * u64::from(MAX_SIDE)).div_ceil(u64::from(side));
            scaled as u32
        };
        let (width, height) = (scaled(picture.width()), scaled(picture.height()));
        Self {
            width: width as usize,
            height: height as usize,
            values: values(&imageops::thumbnail(picture, width, height)),
        }
    }

    /// The longer side.
    pub(crate) fn side(&self) -> usize {
        self.width.max(self.height)
    }

    /// Pixels at the edge of the picture.
    pub(crate) fn edge(&self) -> Vec<f32> {
        let size = (self.width as u32, self.height as u32);
        let depth = (self.side() as u32 / 32).max(1);
        let pixels = self.values.iter().enumerate();
        let edge = pixels.filter(|(at, _)| {
            let (x, y) = (at % self.width, at / self.width);
            is_edge(x as u32, y as u32, size, depth)
        });
        edge.map(|(_, &value)| value).collect()
    }

    /// The brightness that best divides the pixels in two; Otsu (1979).
    pub(crate) fn threshold(&self) -> f32 {
        let mut counts = [0u32; 256];
        for &value in &self.values {
            counts[value as usize & 255] += 1;
        }
        let total = self.values.len() as f64;
        let moments = counts.iter().enumerate();
        let sum: f64 = moments
            .map(|(value, &count)| value as f64 * f64::from(count))
            .sum();
        let (mut best, mut threshold) = (0.0, 0);
        let (mut below, mut sum_below) = (0.0, 0.0);
        for (value, &count) in counts.iter().enumerate() {
            below += f64::from(count);
            sum_below += value as f64 * f64::from(count);
            let above = total - below;
            if below == 0.0 || above == 0.0 {
                continue;
            }
            let gap = sum_below / below - (sum - sum_below) / above;
            let variance = below * above * gap * gap;
            if variance > best {
                (best, threshold) = (variance, value);
            }
        }
        threshold as f32 + 0.5
    }

    /// The up to eight pixels around one.
    pub(crate) fn neighbours(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        let (width, height) = (self.width, self.height);
        let (x, y) = (at % width, at / width);
        let rows = y.saturating_sub(1)..(y + 2).min(height);
        rows.flat_map(move |row| {
            let columns = x.saturating_sub(1)..(x + 2).min(width);
            columns.map(move |column| row * width + column)
        })
        .filter(move |&next| next != at)
    }

    /// The same with `margin` empty pixels on each side.
    pub(crate) fn with_margin(&self, margin: usize) -> Self {
        let (width, height) = (self.width + 2 * margin, self.height + 2 * margin);
        let mut values = vec![0.0; width * height];
        for (row, pixels) in self.values.chunks(self.width).enumerate() {
            let start = (row + margin) * width + margin;
            values[start..start + self.width].copy_from_slice(pixels);
        }
        Self {
            width,
            height,
            values,
        }
    }

    /// The smallest rectangle around all ink: x, y, width, height.
    pub(crate) fn bounds(&self) -> Option<(usize, usize, usize, usize)> {
        let ink = (0..self.values.len()).filter(|&at| self.values[at] > 0.1);
        let points = ink.map(|at| (at % self.width, at / self.width));
        let start = (usize::MAX, usize::MAX, 0, 0);
        let (left, top, right, bottom) = points.fold(start, |(l, t, r, b), (x, y)| {
            (l.min(x), t.min(y), r.max(x), b.max(y))
        });
        (left <= right).then(|| (left, top, right + 1 - left, bottom + 1 - top))
    }

    /// Each pixel made one with those up to `radius` away, first along rows, then along columns.
    pub(crate) fn filtered(&self, radius: usize, join: fn(&[f32]) -> f32) -> Self {
        let line = |values: &[f32]| -> Vec<f32> {
            let window = |at: usize| at.saturating_sub(radius)..(at + radius + 1).min(values.len());
            (0..values.len())
                .map(|at| join(&values[window(at)]))
                .collect()
        };
        let rows: Vec<Vec<f32>> = self.values.chunks(self.width).map(line).collect();
        let mut values = vec![0.0; self.values.len()];
        for x in 0..self.width {
            let column: Vec<f32> = rows.iter().map(|row| row[x]).collect();
            for (y, value) in line(&column).into_iter().enumerate() {
                values[y * self.width + x] = value;
            }
        }
        Self { values, ..*self }
    }
}

/// The mean of some numbers.
pub(crate) fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// The least of them.
pub(crate) fn least(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::INFINITY, f32::min)
}

/// The most of them.
pub(crate) fn most(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// For each of some parts the value that so large a part of the values is not above; 0 of
/// none.
pub(crate) fn quantiles<const N: usize>(values: &[f32], parts: [f64; N]) -> [f32; N] {
    if values.is_empty() {
        return [0.0; N];
    }
    let mut values = values.to_vec();
    parts.map(|part| {
        let at = (part * (values.len() - 1) as f64).round() as usize;
        *values.select_nth_unstable_by(at, f32::total_cmp).1
    })
}
