//! Single-channel images of `f32` values, with filters and statistics.

use image::GrayImage;

use crate::picture::{is_edge, thumbnail};

/// A single-channel image.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// `[height, width]`, row-major.
    pub(crate) values: Vec<f32>,
}

impl Plane {
    /// Converts a picture, values 0 to 255, and scales it down as [`thumbnail`] does.
    pub(crate) fn from_picture(picture: &GrayImage) -> Self {
        Self::from_gray(&thumbnail(picture))
    }

    /// Converts a picture, values 0 to 255.
    pub(crate) fn from_gray(picture: &GrayImage) -> Self {
        Self {
            width: picture.width() as usize,
            height: picture.height() as usize,
            values: picture.as_raw().iter().map(|&v| f32::from(v)).collect(),
        }
    }

    /// Returns the length of the longer side.
    pub(crate) fn side(&self) -> usize {
        self.width.max(self.height)
    }

    /// Returns the values at the edge, to a depth of 1/32 of the longer side.
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

    /// Returns the threshold that maximizes the variance between the two classes of pixels (Otsu,
    /// 1979).
    pub(crate) fn threshold(&self) -> f32 {
        let mut counts = [0u32; 256];
        for &value in &self.values {
            counts[value as usize & 255] += 1;
        }
        let total = self.values.len() as f64;
        let values = counts.iter().enumerate();
        let sum: f64 = values
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

    /// Iterates over the indices of the up to eight neighbors of a pixel.
    pub(crate) fn neighbors(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        let (width, height) = (self.width, self.height);
        let (x, y) = (at % width, at / width);
        let rows = y.saturating_sub(1)..(y + 2).min(height);
        rows.flat_map(move |row| {
            let columns = x.saturating_sub(1)..(x + 2).min(width);
            columns.map(move |column| row * width + column)
        })
        .filter(move |&next| next != at)
    }

    /// Pads each side with `margin` zeros.
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

    /// Returns the bounding box of all values above 0.1: x, y, width, height.
    pub(crate) fn bounds(&self) -> Option<(usize, usize, usize, usize)> {
        let ink = (0..self.values.len()).filter(|&at| self.values[at] > 0.1);
        let points = ink.map(|at| (at % self.width, at / self.width));
        let start = (usize::MAX, usize::MAX, 0, 0);
        let (left, top, right, bottom) = points.fold(start, |(l, t, r, b), (x, y)| {
            (l.min(x), t.min(y), r.max(x), b.max(y))
        });
        (left <= right).then(|| (left, top, right + 1 - left, bottom + 1 - top))
    }

    /// Applies a separable filter: `reduce` of the window of `2 * radius + 1` values around each
    /// pixel, along rows, then along columns. Windows are cut off at the edges.
    pub(crate) fn filtered(&self, radius: usize, reduce: fn(&[f32]) -> f32) -> Self {
        let line = |values: &[f32]| -> Vec<f32> {
            let window = |at: usize| at.saturating_sub(radius)..(at + radius + 1).min(values.len());
            (0..values.len())
                .map(|at| reduce(&values[window(at)]))
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

/// Returns the mean.
pub(crate) fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// Returns the minimum.
pub(crate) fn min(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::INFINITY, f32::min)
}

/// Returns the maximum.
pub(crate) fn max(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Returns the quantile of `values` for each of `fractions`, or zeros if `values` is empty.
pub(crate) fn quantiles<const N: usize>(values: &[f32], fractions: [f64; N]) -> [f32; N] {
    if values.is_empty() {
        return [0.0; N];
    }
    let mut values = values.to_vec();
    fractions.map(|fraction| {
        let at = (fraction * (values.len() - 1) as f64).round() as usize;
        *values.select_nth_unstable_by(at, f32::total_cmp).1
    })
}
