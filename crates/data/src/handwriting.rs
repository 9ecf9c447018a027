//! Handwriting as people have it, brought to what MNIST looks like.
//!
//! Ink is told from paper by its brightness, against paper that may be unevenly lit. What was
//! written is cut out, scaled into a box of 20 of 28 pixels and moved so that its centre of mass is
//! in the middle, as LeCun et al. describe the making of MNIST:
//! <https://yann.lecun.com/exdb/mnist/>.

use image::imageops::{self, FilterType};
use image::{GrayImage, ImageBuffer, Luma};

use crate::plane::{Plane, least, mean, most, quantiles};

/// From this side on, pixels are a camera's or a scanner's, whose noise is smoothed.
const MIN_NOISY_SIDE: u32 = 64;
/// Ink that stands out from its paper by less, of 255, is none.
const MIN_CONTRAST: f32 = 16.0;
/// Spots smaller than this part of the largest stroke are dust.
const DUST: f64 = 0.03;
/// The thinnest strokes that MNIST has, in pixels of its box of 20.
const MIN_STROKE: f32 = 1.8;

/// White strokes on black, `[height, width]`, or `None` where nothing is written.
pub(crate) fn prepare(picture: &GrayImage, height: usize, width: usize) -> Option<Vec<u8>> {
    let ink = Plane::of(picture).ink()?;
    let ink = ink.largest_strokes()?;
    Some(ink.thickened().centred(height, width))
}

impl Plane {
    /// How much ink is on each pixel, 0 to 1.
    fn ink(mut self) -> Option<Self> {
        if self.side() >= MIN_NOISY_SIDE as usize {
            self = self.filtered(1, mean);
        }
        let edge = self.edge();
        let [edge_least, paper, edge_most] = quantiles(&edge, [0.05, 0.5, 0.95]);
        let [least_of_all, most_of_all] = quantiles(&self.values, [0.001, 0.999]);
        let is_even = edge_most - edge_least < 0.15 * (most_of_all - least_of_all);
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
            // What is left where every stroke is narrower than the window.
            let radius = (self.side() / 10).max(1);
            let opened = self.filtered(radius, least).filtered(radius, most);
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
        let mask = self.strokes(threshold);
        for (value, is_ink) in self.values.iter_mut().zip(mask) {
            *value = if is_ink { (*value / ink).min(1.0) } else { 0.0 };
        }
        Some(self)
    }

    /// Whether the ink is darker than its paper: an even edge is paper; else ink is what differs
    /// much from its surroundings, since there is less of it.
    fn is_dark_on_light(&self, paper: Option<f32>) -> bool {
        let differences: Vec<f32> = match paper {
            Some(paper) => self.values.iter().map(|value| value - paper).collect(),
            None => {
                let around = self.filtered((self.side() / 8).max(1), mean);
                let pairs = self.values.iter().zip(around.values);
                pairs.map(|(value, around)| value - around).collect()
            }
        };
        differences.iter().map(|d| d.powi(3)).sum::<f32>() < 0.0
    }

    /// The pixels of all strokes: those above the threshold, the fainter ones that touch them, and
    /// a soft edge.
    fn strokes(&self, threshold: f32) -> Vec<bool> {
        let mut mask: Vec<bool> = self.values.iter().map(|&value| value > threshold).collect();
        let mut reached: Vec<usize> = (0..mask.len()).filter(|&at| mask[at]).collect();
        while let Some(at) = reached.pop() {
            for next in self.neighbours(at) {
                if !mask[next] && self.values[next] > 0.6 * threshold {
                    mask[next] = true;
                    reached.push(next);
                }
            }
        }
        let inner = mask.clone();
        for at in (0..mask.len()).filter(|&at| inner[at]) {
            self.neighbours(at).for_each(|next| mask[next] = true);
        }
        mask
    }

    /// Without dust: strokes much smaller than the largest.
    fn largest_strokes(mut self) -> Option<Self> {
        let mut strokes: Vec<Vec<usize>> = Vec::new();
        let mut seen = vec![false; self.values.len()];
        for start in 0..self.values.len() {
            if seen[start] || self.values[start] == 0.0 {
                continue;
            }
            seen[start] = true;
            let mut stroke = vec![start];
            let mut done = 0;
            while let Some(&at) = stroke.get(done) {
                done += 1;
                for next in self.neighbours(at) {
                    if !seen[next] && self.values[next] > 0.0 {
                        seen[next] = true;
                        stroke.push(next);
                    }
                }
            }
            strokes.push(stroke);
        }
        let mass = |stroke: &[usize]| stroke.iter().map(|&at| f64::from(self.values[at])).sum();
        let masses: Vec<f64> = strokes.iter().map(|stroke| mass(stroke)).collect();
        let largest = masses.iter().copied().fold(0.0, f64::max);
        for (stroke, mass) in strokes.iter().zip(masses) {
            if mass < DUST * largest {
                stroke.iter().for_each(|&at| self.values[at] = 0.0);
            }
        }
        (largest > 0.0).then_some(self)
    }

    /// With strokes at least as thick as MNIST's thinnest. A stroke's area is about its thickness
    /// times half of its outline.
    fn thickened(self) -> Self {
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
                        .filter(|&&is| !is)
                        .count() as f32;
                }
            }
        }
        let per_box = width.max(height) as f32 / 20.0;
        // An outline of pixels is longer than the line it follows: by 4/π, averaged over directions.
        let thickness = 2.0 * area / (outline * std::f32::consts::FRAC_PI_4).max(1.0);
        let radius = (MIN_STROKE * per_box - thickness) / 2.0;
        match radius.round() as usize {
            0 => self,
            radius => {
                let room = self.with_margin(radius);
                room.filtered(radius, most)
            }
        }
    }

    /// Cut out, scaled into 20/28 of the size, and moved to have its centre of mass in the middle.
    fn centred(&self, height: usize, width: usize) -> Vec<u8> {
        let mut pixels = vec![0; height * width];
        let Some((left, top, columns, rows)) = self.bounds() else {
            return pixels;
        };
        let cut = ImageBuffer::from_fn(columns as u32, rows as u32, |x, y| {
            Luma([self.values[(top + y as usize) * self.width + left + x as usize]])
        });
        let box_side = |side: usize| (side * 20).div_ceil(28) as f64;
        let scale = (box_side(width) / columns as f64).min(box_side(height) / rows as f64);
        let scaled = |size: usize| ((size as f64 * scale).round() as u32).max(1);
        let small: ImageBuffer<Luma<f32>, Vec<f32>> =
            imageops::resize(&cut, scaled(columns), scaled(rows), FilterType::Triangle);
        let brightest = small.iter().copied().fold(0.0, f32::max);

        let (mut mass, mut mass_x, mut mass_y) = (0.0, 0.0, 0.0);
        for (x, y, pixel) in small.enumerate_pixels() {
            mass += pixel.0[0];
            mass_x += pixel.0[0] * (x as f32 + 0.5);
            mass_y += pixel.0[0] * (y as f32 + 0.5);
        }
        // The middle of MNIST is its pixel 14 of 0 to 27. What is written may not leave the image.
        let offset = |outer: usize, centre: f32, inner: u32| {
            let offset = ((outer / 2) as f32 + 0.5 - centre).round() as i64;
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

    /// A picture of `side` x `side` with a brightness for each pixel.
    fn picture(side: u32, brightness: impl Fn(f32, f32) -> f32) -> GrayImage {
        GrayImage::from_fn(side, side, |x, y| {
            Luma([brightness(x as f32, y as f32).clamp(0.0, 255.0) as u8])
        })
    }

    /// How far a point is from the upright line at x = 90, from y = 60 to 200.
    fn from_stroke(x: f32, y: f32) -> f32 {
        (x - 90.0).hypot((y - y.clamp(60.0, 200.0)).abs())
    }

    /// Rows and columns with ink.
    fn extent(pixels: &[u8]) -> (usize, usize) {
        let inked = |at: &usize| pixels[*at] > 100;
        let rows = (0..28).filter(|row| (0..28).any(|column| inked(&(row * 28 + column))));
        let columns = (0..28).filter(|column| (0..28).any(|row| inked(&(row * 28 + column))));
        (rows.count(), columns.count())
    }

    #[test]
    fn ink_is_found_whatever_it_is_written_with() {
        let stroke = |half: f32| move |x: f32, y: f32| from_stroke(x, y) < half;
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
    fn nothing_is_found_where_nothing_is_written() {
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
    fn the_longest_pictures_are_taken() {
        // 2^24 * 256 does not fit 32 bits.
        let long = GrayImage::from_fn(1 << 24, 1, |x, _| Luma([if x > 1 << 23 { 0 } else { 255 }]));
        assert!(prepare(&long, 28, 28).is_some());
    }

    #[test]
    fn dust_is_left_out() {
        let clean = picture(
            260,
            |x, y| if from_stroke(x, y) < 6.0 { 0.0 } else { 255.0 },
        );
        let mut dusty = clean.clone();
        for (x, y) in [(20, 20), (240, 30), (200, 220)] {
            dusty.put_pixel(x, y, Luma([0]));
            dusty.put_pixel(x + 1, y, Luma([0]));
        }
        assert_eq!(prepare(&dusty, 28, 28), prepare(&clean, 28, 28));
    }

    #[cfg(feature = "embedded-mnist")]
    #[test]
    fn digits_of_mnist_on_paper_become_themselves() {
        let test = crate::Splits::embedded_mnist().unwrap().test;
        let mut difference = 0.0;
        for index in 0..200 {
            let digit = GrayImage::from_raw(28, 28, test.pixels(index).to_vec()).unwrap();
            let large = imageops::resize(&digit, 140, 140, FilterType::CatmullRom);
            let mut paper = GrayImage::from_pixel(300, 240, Luma([255]));
            for (x, y, pixel) in large.enumerate_pixels() {
                paper.put_pixel(x + 130, y + 20, Luma([255 - pixel.0[0]]));
            }
            let prepared = prepare(&paper, 28, 28).unwrap();
            let pairs = prepared.iter().zip(test.pixels(index));
            difference += pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
        }
        let mean = difference / (200.0 * 784.0);
        // Moved by a pixel it would be more than 20.
        assert!(mean < 10.0, "{mean} of 255 on average");
    }
}
