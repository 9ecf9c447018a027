//! Rectangles of pixels.

use std::ops::Range;

use rand::Rng;

use crate::sample::Sample;

/// A rectangle of pixels, empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rectangle {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

impl Rectangle {
    /// Draws a rectangle of 2 to 20% of the image with an aspect ratio of at most 3.
    pub(crate) fn draw([height, width]: [usize; 2], random: &mut impl Rng) -> Self {
        let area = (height * width) as f32 * random.random_range(0.02..=0.2f32);
        let aspect = 3.0_f32.powf(random.random_range(-0.5..=0.5f32));
        let size = |length: f32, max: usize| (length.round() as usize).clamp(1, max);
        let rows = size((area * aspect).sqrt(), height);
        let columns = size((area / aspect).sqrt(), width);
        let top = random.random_range(0..=height - rows);
        let left = random.random_range(0..=width - columns);
        Self {
            rows: top..top + rows,
            columns: left..left + columns,
        }
    }

    /// Returns the part inside of an image of `size` of a rectangle around the pixel `center`.
    pub(crate) fn around(center: [usize; 2], lengths: [usize; 2], size: [usize; 2]) -> Self {
        let range = |axis: usize| {
            let start = center[axis].saturating_sub(lengths[axis] / 2);
            let end = (center[axis] + lengths[axis]).saturating_sub(lengths[axis] / 2);
            start..end.min(size[axis])
        };
        Self {
            rows: range(0),
            columns: range(1),
        }
    }

    /// Returns the number of pixels.
    pub(crate) fn area(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Returns the first row, the first column, and the row and the column after the last ones.
    pub(crate) fn corners(&self) -> [f32; 4] {
        let Self { rows, columns } = self;
        [rows.start, columns.start, rows.end, columns.end].map(|at| at as f32)
    }

    /// Sets its pixels to the value of each channel. A gray image has the first one.
    pub(crate) fn fill(&self, sample: &mut Sample, values: [u8; 3]) {
        let channels = sample.pixels.chunks_mut(sample.height * sample.width);
        for (channel, value) in channels.zip(values) {
            for row in self.rows.clone() {
                channel[row * sample.width..][self.columns.clone()].fill(value);
            }
        }
    }
}
