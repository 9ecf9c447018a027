//! Conversion of photos and scans of handwriting into images in the style of MNIST.
//!
//! Ink is separated from paper by brightness; the paper may be unevenly lit. The strokes are
//! cropped, scaled into a box of 20 of 28 pixels and translated so that their center of mass is in
//! the middle, as in MNIST: <https://yann.lecun.com/exdb/mnist/>.

use image::imageops::{self, FilterType};
use image::{GrayImage, ImageBuffer, Luma};

use crate::plane::{Plane, max, mean, min, quantiles};

/// Pictures of this size and larger come from a camera or scanner, so their noise is smoothed.
const MIN_NOISY_SIDE: usize = 64;
/// Minimum contrast between ink and paper, of 255.
const MIN_CONTRAST: f32 = 16.0;
/// Connected components with less than this fraction of the largest one's mass are dust.
const DUST: f64 = 0.03;
/// Minimum stroke thickness of MNIST, in pixels of its 20-pixel box.
const MIN_STROKE: f32 = 1.8;

/// Returns white strokes on black, `[height, width]`, or `None` for a blank picture.
pub(crate) fn prepare(picture: &GrayImage, height: usize, width: usize) -> Option<Vec<u8>> {
    let ink = Plane::from_picture(picture).extract_ink()?;
    let ink = ink.remove_dust()?;
    Some(ink.thicken().center(height, width))
}

impl Plane {
    /// Returns the ink density of each pixel, 0 to 1, or `None` for a blank picture.
    pub(crate) fn extract_ink(mut self) -> Option<Self> {
        if self.side() >= MIN_NOISY_SIDE {
            self = self.filtered(1, mean);
        }
        let edge = self.edge();
        let [edge_low, paper, edge_high] = quantiles(&edge, [0.05, 0.5, 0.95]);
        let [low, high] = quantiles(&self.values, [0.001, 0.999]);
        let is_even = edge_high - edge_low < 0.15 * (high - low);
        if self.is_dark_on_light(is_even.then_some(paper)) {
            self.values
                .iter_mut()
                .for_each(|value| *value = 255.0 - *value);
        }
        let paper = if is_even {
            let [paper] = quantiles(&self.edge(), [0.5]);
            Self {
                values: vec![paper; self.values.len()],
                ..self
            }
        } else {
            // Morphological opening removes strokes narrower than the window and leaves the paper.
            let radius = (self.side() / 10).max(1);
            let opened = self.filtered(radius, min).filtered(radius, max);
            opened.filtered(radius, mean)
        };
        for (value, paper) in self.values.iter_mut().zip(&paper.values) {
            *value = (*value - paper).max(0.0);
        }

        let threshold = self.threshold();
        let strong = self.values.iter().filter(|&&value| value > threshold);
        let strong: Vec<f32> = strong.copied().collect();
        let weak = self.values.iter().filter(|&&value| value <= threshold);
        let weak_mean = weak.clone().sum::<f32>() / weak.count().max(1) as f32;
        let [ink] = quantiles(&strong, [0.7]);
        if strong.is_empty() || ink - weak_mean < MIN_CONTRAST {
            return None;
        }
        let mask = self.stroke_mask(threshold);
        for (value, is_ink) in self.values.iter_mut().zip(mask) {
            *value = if is_ink { (*value / ink).min(1.0) } else { 0.0 };
        }
        Some(self)
    }

    /// Returns whether the ink is darker than the paper.
    ///
    /// `paper` is the brightness of evenly lit paper; without it, the local mean is used. Ink
    /// covers less area than paper and differs more, so it decides the sign of the sum of cubed
    /// differences.
    fn is_dark_on_light(&self, paper: Option<f32>) -> bool {
        let differences: Vec<f32> = match paper {
            Some(paper) => self.values.iter().map(|value| value - paper).collect(),
            None => {
                let local_mean = self.filtered((self.side() / 8).max(1), mean);
                let pairs = self.values.iter().zip(local_mean.values);
                pairs.map(|(value, mean)| value - mean).collect()
            }
        };
        differences.iter().map(|d| d.powi(3)).sum::<f32>() < 0.0
    }

    /// Returns the mask of the strokes by hysteresis thresholding: pixels above the threshold, and
    /// fainter pixels connected to them, dilated by one pixel.
    fn stroke_mask(&self, threshold: f32) -> Vec<bool> {
        let mut mask: Vec<bool> = self.values.iter().map(|&value| value > threshold).collect();
        let mut pending: Vec<usize> = (0..mask.len()).filter(|&at| mask[at]).collect();
        while let Some(at) = pending.pop() {
            for next in self.neighbors(at) {
                if !mask[next] && self.values[next] > 0.6 * threshold {
                    mask[next] = true;
                    pending.push(next);
                }
            }
        }
        let inner = mask.clone();
        for at in (0..mask.len()).filter(|&at| inner[at]) {
            self.neighbors(at).for_each(|next| mask[next] = true);
        }
        mask
    }

    /// Clears connected components much smaller than the largest. Returns `None` if there are none.
    fn remove_dust(mut self) -> Option<Self> {
        let components = self.components(|at| self.values[at] > 0.0);
        let masses = components.iter().map(|component| component.mass);
        let largest = masses.fold(0.0, f64::max);
        for component in components {
            if component.mass < DUST * largest {
                component
                    .pixels
                    .iter()
                    .for_each(|&at| self.values[at] = 0.0);
            }
        }
        (largest > 0.0).then_some(self)
    }

    /// Dilates strokes thinner than [`MIN_STROKE`]. The thickness is estimated as twice the area
    /// divided by the length of the outline.
    pub(crate) fn thicken(self) -> Self {
        let Some((x, y, width, height)) = self.bounds() else {
            return self;
        };
        let is_ink = |x: usize, y: usize| self.values[y * self.width + x] > 0.5;
        let (mut area, mut outline) = (0.0f32, 0.0f32);
        for row in y..y + height {
            for column in x..x + width {
                if is_ink(column, row) {
                    area += 1.0;
                    let left = column > 0 && is_ink(column - 1, row);
                    let right = column + 1 < self.width && is_ink(column + 1, row);
                    let above = row > 0 && is_ink(column, row - 1);
                    let below = row + 1 < self.height && is_ink(column, row + 1);
                    outline += [left, right, above, below]
                        .iter()
                        .filter(|&&is_ink| !is_ink)
                        .count() as f32;
                }
            }
        }
        let per_box = width.max(height) as f32 / 20.0;
        // A pixel outline is longer than the curve: by a factor of 4/π, averaged over directions.
        let thickness = 2.0 * area / (outline * std::f32::consts::FRAC_PI_4).max(1.0);
        let radius = (MIN_STROKE * per_box - thickness) / 2.0;
        match radius.round() as usize {
            0 => self,
            radius => {
                let padded = self.with_margin(radius);
                padded.filtered(radius, max)
            }
        }
    }

    /// Crops the ink, scales it into 20/28 of the image and translates its center of mass to the
    /// middle.
    pub(crate) fn center(&self, height: usize, width: usize) -> Vec<u8> {
        let mut pixels = vec![0; height * width];
        let Some((left, top, columns, rows)) = self.bounds() else {
            return pixels;
        };
        let cropped = ImageBuffer::from_fn(columns as u32, rows as u32, |x, y| {
            Luma([self.values[(top + y as usize) * self.width + left + x as usize]])
        });
        let box_side = |side: usize| (side * 20).div_ceil(28) as f64;
        let scale = (box_side(width) / columns as f64).min(box_side(height) / rows as f64);
        let scaled = |size: usize| ((size as f64 * scale).round() as u32).max(1);
        let small: ImageBuffer<Luma<f32>, Vec<f32>> = imageops::resize(
            &cropped,
            scaled(columns),
            scaled(rows),
            FilterType::Triangle,
        );
        let brightest = small.iter().copied().fold(0.0, f32::max);

        let (mut mass, mut mass_x, mut mass_y) = (0.0, 0.0, 0.0);
        for (x, y, pixel) in small.enumerate_pixels() {
            mass += pixel.0[0];
            mass_x += pixel.0[0] * (x as f32 + 0.5);
            mass_y += pixel.0[0] * (y as f32 + 0.5);
        }
        // The middle of MNIST is pixel 14 of 0 to 27. The ink must stay inside the image.
        let offset = |outer: usize, center: f32, inner: u32| {
            let offset = ((outer / 2) as f32 + 0.5 - center).round() as i64;
            offset.clamp(0, outer as i64 - i64::from(inner)) as usize
        };
        let x_offset = offset(width, mass_x / mass, small.width());
        let y_offset = offset(height, mass_y / mass, small.height());
        for (x, y, pixel) in small.enumerate_pixels() {
            let at = (y_offset + y as usize) * width + x_offset + x as usize;
            pixels[at] = (255.0 * pixel.0[0] / brightest).round() as u8;
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a picture of `side` x `side` pixels with the given brightness at each `(x, y)`.
    fn picture(side: u32, brightness: impl Fn(f32, f32) -> f32) -> GrayImage {
        GrayImage::from_fn(side, side, |x, y| {
            Luma([brightness(x as f32, y as f32).clamp(0.0, 255.0) as u8])
        })
    }

    /// Returns the distance of a point from the vertical line at x = 90 from y = 60 to 200.
    fn distance_from_stroke(x: f32, y: f32) -> f32 {
        (x - 90.0).hypot((y - y.clamp(60.0, 200.0)).abs())
    }

    /// Returns the numbers of rows and columns with ink.
    fn extent(pixels: &[u8]) -> (usize, usize) {
        let inked = |at: &usize| pixels[*at] > 100;
        let rows = (0..28).filter(|row| (0..28).any(|column| inked(&(row * 28 + column))));
        let columns = (0..28).filter(|column| (0..28).any(|row| inked(&(row * 28 + column))));
        (rows.count(), columns.count())
    }

    #[test]
    fn finds_ink_of_all_writing_tools() {
        let stroke = |half: f32| move |x: f32, y: f32| distance_from_stroke(x, y) < half;
        let noise = |x: f32, y: f32| ((x * 12.9 + y * 78.2).sin() * 43_758.5).fract() * 12.0;
        let pen = stroke(6.0);
        let thin = stroke(1.0);
        let cases: [(&str, GrayImage); 5] = [
            (
                "black on white",
                picture(260, |x, y| if pen(x, y) { 0.0 } else { 255.0 }),
            ),
            (
                "white on black",
                picture(260, |x, y| if pen(x, y) { 255.0 } else { 0.0 }),
            ),
            (
                "a fine pen",
                picture(260, |x, y| if thin(x, y) { 40.0 } else { 250.0 }),
            ),
            (
                "a pencil",
                picture(260, |x, y| {
                    if pen(x, y) {
                        130.0
                    } else {
                        180.0 + noise(x, y)
                    }
                }),
            ),
            (
                "in a shadow",
                picture(260, |x, y| {
                    let light = if x + 0.5 * y > 200.0 { 0.55 } else { 1.0 };
                    light * (noise(x, y) + if pen(x, y) { 60.0 } else { 210.0 })
                }),
            ),
        ];
        for (name, picture) in cases {
            let pixels = prepare(&picture, 28, 28).expect(name);
            let (rows, columns) = extent(&pixels);
            assert!((19..=21).contains(&rows), "{name}: {rows} rows");
            assert!((1..=4).contains(&columns), "{name}: {columns} columns");
            let background = pixels.iter().filter(|&&pixel| pixel == 0).count();
            assert!(background > 600, "{name}: {background} black pixels");
        }
    }

    #[test]
    fn rejects_blank_pictures() {
        let noise = |x: f32, y: f32| ((x * 12.9 + y * 78.2).sin() * 43_758.5).fract() * 20.0;
        assert_eq!(prepare(&picture(100, |_, _| 255.0), 28, 28), None);
        assert_eq!(prepare(&picture(1, |_, _| 7.0), 28, 28), None);
        assert_eq!(
            prepare(&picture(300, |x, y| 200.0 + noise(x, y)), 28, 28),
            None
        );
        assert_eq!(prepare(&picture(200, |x, _| 100.0 + x / 2.0), 28, 28), None);
    }

    #[test]
    fn accepts_the_longest_pictures() {
        // 2^24 * 256 exceeds 32 bits.
        let long = GrayImage::from_fn(1 << 24, 1, |x, _| Luma([if x > 1 << 23 { 0 } else { 255 }]));
        assert!(prepare(&long, 28, 28).is_some());
    }

    #[test]
    fn removes_dust() {
        let clean = picture(260, |x, y| {
            if distance_from_stroke(x, y) < 6.0 {
                0.0
            } else {
                255.0
            }
        });
        let mut dusty = clean.clone();
        for (x, y) in [(20, 20), (240, 30), (200, 220)] {
            dusty.put_pixel(x, y, Luma([0]));
            dusty.put_pixel(x + 1, y, Luma([0]));
        }
        assert_eq!(prepare(&dusty, 28, 28), prepare(&clean, 28, 28));
    }
}
