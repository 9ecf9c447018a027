//! Geometric transforms of an image: an affine map with elastic distortion, sampled bilinearly.

use crate::elastic::Displacements;
use crate::sample::Sample;

/// A geometric transform: the map from each pixel of the result to its source coordinates.
pub(crate) struct Warp {
    /// Affine map of coordinates relative to the center, `[source x or y][x, y, 1]`.
    pub(crate) affine: [[f32; 3]; 2],
    /// Displacements added to the source coordinates.
    pub(crate) elastic: Option<Displacements>,
}

/// The pixels around an image that a transform shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Black.
    Black,
    /// The nearest pixels of the image.
    Edge,
}

impl Warp {
    /// Returns the transformed pixels, `[channels, height, width]`.
    pub(crate) fn apply(&self, sample: &Sample, outside: Outside) -> Vec<u8> {
        let &Sample {
            channels,
            height,
            width,
            ..
        } = sample;
        let padding = Padding { height, width };
        let padded: Vec<Vec<f32>> = sample
            .pixels
            .chunks_exact(height * width)
            .map(|plane| padding.pad(plane, outside))
            .collect();
        let mut pixels = vec![0; channels * height * width];
        let [center_x, center_y] = [width, height].map(|size| (size as f32 - 1.0) / 2.0);
        let [source_x, source_y] = self.affine;
        // Each step processes a whole row, so that the compiler can vectorize it.
        let mut coordinates = vec![[0.0; 2]; width];
        let mut positions = vec![Position::default(); width];
        for row in 0..height {
            let y = row as f32 - center_y;
            for (column, coordinates) in coordinates.iter_mut().enumerate() {
                let x = column as f32 - center_x;
                *coordinates = [
                    source_x[0] * x + source_x[1] * y + source_x[2] + center_x,
                    source_y[0] * x + source_y[1] * y + source_y[2] + center_y,
                ];
            }
            if let Some(elastic) = &self.elastic {
                elastic.add_to_row(row, &mut coordinates);
            }
            for (position, &coordinates) in positions.iter_mut().zip(&coordinates) {
                *position = padding.position(coordinates);
            }
            for (channel, padded) in padded.iter().enumerate() {
                let start = (channel * height + row) * width;
                let pixels = &mut pixels[start..start + width];
                for (pixel, position) in pixels.iter_mut().zip(&positions) {
                    *pixel = position.interpolate(padded, padding.pitch());
                }
            }
        }
        pixels
    }
}

/// Padding around an image: one pixel before and two after it. Coordinates outside are clamped to the
/// padding, which makes bounds checks unnecessary.
#[derive(Clone, Copy)]
struct Padding {
    height: usize,
    width: usize,
}

impl Padding {
    /// Returns the width of the padded image.
    fn pitch(self) -> usize {
        self.width + 3
    }

    fn pad(self, plane: &[u8], outside: Outside) -> Vec<f32> {
        match outside {
            Outside::Black => self.pad_black(plane),
            Outside::Edge => self.pad_edge(plane),
        }
    }

    fn pad_edge(self, plane: &[u8]) -> Vec<f32> {
        let Self { height, width } = self;
        let source = |at: usize, size: usize| at.saturating_sub(1).min(size - 1);
        let row = |row: usize| {
            let plane = &plane[source(row, height) * width..][..width];
            (0..self.pitch()).map(move |column| f32::from(plane[source(column, width)]))
        };
        (0..height + 3).flat_map(row).collect()
    }

    fn pad_black(self, plane: &[u8]) -> Vec<f32> {
        let pitch = self.pitch();
        let mut padded = vec![0.0; (self.height + 3) * pitch];
        let rows = padded.chunks_exact_mut(pitch).skip(1);
        for (padded, row) in rows.zip(plane.chunks_exact(self.width)) {
            for (padded, &pixel) in padded[1..].iter_mut().zip(row) {
                *padded = f32::from(pixel);
            }
        }
        padded
    }

    /// Converts coordinates in the image into a position in the padded image.
    fn position(self, [x, y]: [f32; 2]) -> Position {
        // The values are not negative, so the conversion to an integer needs no call of `floor`.
        let x = x.clamp(-1.0, self.width as f32) + 1.0;
        let y = y.clamp(-1.0, self.height as f32) + 1.0;
        let (column, row) = (x as i32, y as i32);
        Position {
            upper_left: row as usize * self.pitch() + column as usize,
            right: x - column as f32,
            down: y - row as f32,
        }
    }
}

/// A position between four pixels of a padded image.
#[derive(Clone, Copy, Default)]
struct Position {
    /// Index of the upper left pixel.
    upper_left: usize,
    /// Offset from that pixel, 0 to 1.
    right: f32,
    down: f32,
}

impl Position {
    /// Interpolates bilinearly, and rounds to the nearest integer.
    fn interpolate(&self, padded: &[f32], pitch: usize) -> u8 {
        let along_row = |pair: &[f32]| pair[0] + self.right * (pair[1] - pair[0]);
        let above = along_row(&padded[self.upper_left..self.upper_left + 2]);
        let below = along_row(&padded[self.upper_left + pitch..self.upper_left + pitch + 2]);
        (above + self.down * (below - above) + 0.5) as u8
    }
}
